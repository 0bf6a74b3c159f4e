"""How do many simulations share the cores? A small pool of spawned worker processes.

Unlike the standard pools it reports progress from inside a job, lets a job have
processes of its own (the controller's twin), and leaves none behind on Ctrl-C.
"""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
OnProgress = Callable[[int], None]

STOP_GRACE_S = 5.0


class WorkerError(RuntimeError):
    """A job failed in its worker; the worker's traceback is a note on it."""


class WorkerPool:
    """`jobs` worker processes that live until the `with` block ends."""

    def __init__(self, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,))
            process.start()
            theirs.close()
            self._workers[ours] = process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for connection, process in self._workers.items():
            if kind is None:
                connection.close()  # the worker reads the end of the pipe and returns
            else:
                process.terminate()
        for connection, process in self._workers.items():
            process.join(STOP_GRACE_S)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()

    def map(
        self,
        function: Callable[[Item, OnProgress], Answer],
        items: Sequence[Item],
        on_progress: Callable[[int, int], None],
        on_done: Callable[[int, Answer], None],
    ) -> list[Answer]:
        """Run `function(item, report)` for each item; answers in the order of the items.

        `on_progress(index, n)` passes on what a job reports; `on_done(index, answer)`
        follows each job. `function` and the items must be picklable.

        Raises:
            WorkerError: a job raised, or its worker died.
        """
        todo = deque(range(len(items)))
        answers: dict[int, Answer] = {}
        at_work: dict[Connection, int] = {}
        for connection in self._workers:
            _give(connection, function, items, todo, at_work)
        while at_work:
            for ready in wait(list(at_work)):
                connection = next(c for c in at_work if c is ready)
                index = at_work[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError) as error:
                    code = self._workers[connection].exitcode
                    raise WorkerError(f"a worker process died (exit code {code})") from error
                if kind == "progress":
                    on_progress(index, value)
                    continue
                if kind == "failed":
                    message, details = value
                    failure = WorkerError(message)
                    failure.add_note(details)
                    raise failure
                answers[index] = value
                on_done(index, value)
                del at_work[connection]
                _give(connection, function, items, todo, at_work)
        return [answers[index] for index in range(len(items))]


def _give(
    connection: Connection,
    function: Callable[[Any, OnProgress], Any],
    items: Sequence[Any],
    todo: deque[int],
    at_work: dict[Connection, int],
) -> None:
    if todo:
        index = todo.popleft()
        at_work[connection] = index
        connection.send((function, items[index]))


def _work(connection: Connection) -> None:
    """Worker process: jobs in, progress and answers out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, _leave)  # unwinds, so that a job closes what it opened
    os.dup2(2, 1)  # standard output belongs to the result
    os.nice(5)
    while True:
        try:
            function, item = connection.recv()
        except EOFError:
            return
        try:
            answer = function(item, _Reporter(connection))
        except Exception as error:  # noqa: BLE001  whatever a job raises goes to the parent
            message = f"{type(error).__name__}: {error}"
            connection.send(("failed", (message, traceback.format_exc())))
        else:
            connection.send(("done", answer))


class _Reporter:
    """Sends progress to the parent, but not the same figure twice."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = -1

    def __call__(self, n: int) -> None:
        if n != self._last:
            self._last = n
            self._connection.send(("progress", n))


def _leave(signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
