"""Where does the twin compute? In a process of its own, kept warm, with a deadline.

`Forecaster` is the seam: the controller uses `TwinProcess`; a run in virtual time may
compute in its own process, where waiting costs nothing.
"""

import multiprocessing
import threading
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
    """Computes one forecast after the other. `deadline_s` is on the monotonic clock.

    Whoever raises WorkerLostError has ended the worker: `start` begins another.
    """

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
        """End it for good, whatever it is doing, also from another thread."""
        ...


class TwinProcess:
    """A spawned worker. One that was lost is started again by `start`, never after `close`.

    One thread asks; another may `close` meanwhile, which ends the wait for an answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of what follows; never held while waiting for an answer
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._ready = self._closed = False

    def start(self) -> None:
        """See Forecaster; it takes about 10 s to be ready."""
        with self._lock:
            if self._closed or (self._process is not None and self._process.is_alive()):
                return
            self._end()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=serve, args=(theirs,), daemon=True, name="hmas-twin"
            )
            self._process.start()
            theirs.close()

    def wait_ready(self, limit_s: float | None) -> bool:
        """See Forecaster. Raises WorkerLostError."""
        pipe = self._worker()
        if not self._ready:
            try:
                if pipe.poll(limit_s):
                    pipe.recv()
                    self._ready = True
            except (EOFError, OSError) as error:
                raise self._lost(f"twin_failed: the worker ended ({error!r})") from error
        return self._ready

    def send(self, situation: Situation) -> None:
        """See Forecaster."""
        try:
            self._worker().send(situation)
        except OSError as error:
            raise self._lost(f"twin_failed: the worker ended ({error!r})") from error

    def ask(self, ask: Ask, deadline_s: float | None) -> float | str:
        """See Forecaster."""
        pipe = self._worker()
        try:
            pipe.send(ask)
            if not pipe.poll(left_s(deadline_s)):
                # A worker in the middle of a replay cannot be asked again.
                raise self._lost("twin_timeout: out of its time budget")
            answer: float | str = pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost(f"twin_failed: the worker ended ({error!r})") from error
        return answer

    def close(self) -> None:
        """See Forecaster; for good."""
        with self._lock:
            self._closed = True
            self._end()

    def _worker(self) -> Connection:
        pipe = self._pipe
        if pipe is None:
            raise WorkerLostError("twin_failed: there is no worker")
        return pipe

    def _lost(self, fault: str) -> WorkerLostError:
        with self._lock:
            self._end()
        return WorkerLostError(fault)

    def _end(self) -> None:
        """End the worker: its end of the pipe closes, and whoever waits on ours wakes up.

        Our end closes with its last user: a number that is closed under a waiting thread may be
        another file's by the time it reads.
        """
        if self._process is not None:
            self._process.terminate()
            self._process.join(STOP_WAIT_S)
            if self._process.is_alive():
                self._process.kill()
        self._pipe = self._process = None
        self._ready = False


def left_s(deadline_s: float | None) -> float | None:
    """Seconds until a deadline on the monotonic clock; None for none."""
    return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
