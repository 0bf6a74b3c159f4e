"""How do many simulations share the cores? Worker processes of the standard library's pool."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from typing import Self, TypeVar

from evals.progress import CaseProgress
from evals.sim.freed_memory import keep_freed_memory

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class WorkerError(RuntimeError):
    """A job failed; says which one. What it raised, with the worker's traceback, is the cause."""


class Workers:
    """So many worker processes (0: one per core) for the length of a `with` block.

    None outlives it, nor this process; progress counts the jobs that are done, and gets a line of
    each.
    """

    def __init__(self, jobs: int, progress: CaseProgress) -> None:
        # Spawned, not forked: this process has threads.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(jobs or None, context, _begin)
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # what runs is in vain
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def run(
        self,
        function: Callable[[Item], Answer],
        items: Sequence[Item],
        title: Callable[[Item], str],
        line: Callable[[Item, Answer], str],
    ) -> list[Answer]:
        """Answers to all items, one job each, in their order.

        `function` is importable by its name, items and answers are picklable; `title` names the job
        in a failure, `line` is what to say of one that is done.

        Raises:
            WorkerError: a job raised, or a worker died.
        """
        index = {self._pool.submit(function, item): i for i, item in enumerate(items)}
        answers: dict[int, Answer] = {}
        with self._progress.counting(len(items)) as done:
            for future in as_completed(index):
                item = items[index[future]]
                try:
                    answer = answers[index[future]] = future.result()
                except BrokenExecutor as error:
                    raise WorkerError("a worker process died: is there enough memory?") from error
                except Exception as error:
                    raise WorkerError(f"{title(item)}: {type(error).__name__}: {error}") from error
                done(line(item, answer))
        return [answers[i] for i in range(len(items))]


def _begin() -> None:
    """In each worker, before its first job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.dup2(2, 1)  # standard output belongs to the result
    os.nice(5)
    keep_freed_memory()
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """In a thread of a worker: a parent that is killed cannot end it, and it would live on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
