"""Where does the twin compute? In a process of its own, kept warm, with a deadline.

`Forecaster` is the seam: the controller uses `TwinProcess`; a run in virtual time may
compute in its own process, where waiting costs nothing.
"""

import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Protocol

from hmas_agents.situation import Situation
from hmas_agents.twin_worker import Ask, serve

STOP_WAIT_S = 1.0


class WorkerLostError(Exception):
    """The worker is gone, or busy beyond its budget; says which as a fault."""


class Forecaster(Protocol):
    """Computes one forecast after the other. `deadline_s` is on the monotonic clock."""

    def start(self) -> None:
        """Get ready, without waiting for it; nothing where it is running."""
        ...

    def wait_ready(self, limit_s: float | None) -> bool:
        """Wait until forecasts can be made; False when `limit_s` was not enough."""
        ...

    def send(self, situation: Situation) -> None:
        """What the next asks start from. Raises WorkerLostError."""
        ...

    def ask(self, ask: Ask, deadline_s: float | None) -> float | str:
        """An attainment, or what went wrong. Raises WorkerLostError."""
        ...

    def close(self) -> None:
        """End it, whatever it is doing."""
        ...


class TwinProcess:
    """A spawned worker; started again when it was lost."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._ready = False

    def start(self) -> None:
        """See Forecaster; it takes about 10 s to be ready."""
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        self._ready = False
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True, name="hmas-twin")
        self._process.start()
        theirs.close()

    def wait_ready(self, limit_s: float | None) -> bool:
        """See Forecaster."""
        if not self._ready and self._pipe is not None:
            try:
                if self._pipe.poll(limit_s):
                    self._pipe.recv()
                    self._ready = True
            except (EOFError, OSError) as error:
                raise _ended(error) from error
        return self._ready

    def send(self, situation: Situation) -> None:
        """See Forecaster."""
        assert self._pipe is not None
        try:
            self._pipe.send(situation)
        except OSError as error:
            raise _ended(error) from error

    def ask(self, ask: Ask, deadline_s: float | None) -> float | str:
        """See Forecaster."""
        assert self._pipe is not None
        try:
            self._pipe.send(ask)
            if not self._pipe.poll(left_s(deadline_s)):
                # A worker in the middle of a replay cannot be asked again.
                raise WorkerLostError("twin_timeout: out of its time budget")
            answer: float | str = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _ended(error) from error
        return answer

    def close(self) -> None:
        """See Forecaster."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join(STOP_WAIT_S)
            if self._process.is_alive():
                self._process.kill()
        self._pipe = self._process = None


def left_s(deadline_s: float | None) -> float | None:
    """Seconds until a deadline on the monotonic clock; None for none."""
    return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())


def _ended(error: Exception) -> WorkerLostError:
    return WorkerLostError(f"twin_failed: the worker ended ({error!r})")
