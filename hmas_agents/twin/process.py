"""Where does the twin compute? In a process of its own, kept warm, with a deadline.

`Forecaster` is the seam: the controller uses `TwinProcess`; a run in virtual time computes
`InProcess`, where waiting costs nothing.
"""

import multiprocessing
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Protocol

from hmas_agents.twin.question import Answer, Question
from hmas_agents.twin.worker import answer, serve

STOP_WAIT_S = 1.0
_GRACE_S = 1.0  # beyond the limit of a question: a trial takes milliseconds


class WorkerLostError(Exception):
    """The worker is gone, or busy beyond its budget; says which as a fault."""


class Forecaster(Protocol):
    """Answers one question after the other.

    Whoever raises WorkerLostError has ended the worker: `start` begins another.
    """

    def start(self) -> None:
        """Get ready, without waiting for it; nothing where it is running."""
        ...

    def wait_ready(self, limit_s: float | None) -> bool:
        """Wait until questions can be answered; False when `limit_s` was not enough."""
        ...

    def ask(self, question: Question) -> Answer:
        """What the twin says. Raises WorkerLostError."""
        ...

    def close(self) -> None:
        """End it for good, whatever it is doing, also from another thread."""
        ...


class InProcess:
    """Answers at once; there is nothing to start, to wait for, or to lose."""

    def start(self) -> None:
        """See Forecaster."""

    def wait_ready(self, limit_s: float | None) -> bool:  # noqa: ARG002  nothing to wait for
        """See Forecaster."""
        return True

    def ask(self, question: Question) -> Answer:
        """See Forecaster."""
        return answer(question)

    def close(self) -> None:
        """See Forecaster."""


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
        """See Forecaster; it takes some seconds to be ready."""
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

    def ask(self, question: Question) -> Answer:
        """See Forecaster."""
        pipe, limit_s = self._worker(), question.limit_s
        try:
            pipe.send(question)
            if not pipe.poll(None if limit_s is None else limit_s + _GRACE_S):
                # A worker that computes cannot be asked again.
                raise self._lost("twin_timeout: out of its time budget")
            said: Answer = pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost(f"twin_failed: the worker ended ({error!r})") from error
        return said

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

