"""How is work handed to the pool, and not done twice? Called by `evals.runner`.

A task is an item with a key; what the store has under that key is not run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from evals.progress import CaseProgress
from evals.workers import OnProgress, WorkerPool

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Task(Generic[Item]):
    """An item to work on; `size` is what its progress counts to."""

    key: str
    item: Item
    title: str
    size: int


@dataclass(frozen=True, slots=True)
class Shelf(Generic[Answer]):
    """Where answers are kept by key; by default nowhere."""

    find: Callable[[str], Answer | None] = lambda _key: None
    add: Callable[[str, Answer], object] = lambda _key, _answer: None


def run_tasks(
    pool: WorkerPool,
    function: Callable[[Item, OnProgress], Answer],
    tasks: Sequence[Task[Item]],
    shelf: Shelf[Answer],
    progress: CaseProgress,
    line: Callable[[Task[Item], Answer], str],
) -> list[Answer]:
    """Answers in the order of the tasks, from the shelf or from the pool.

    Args:
        pool: runs `function`.
        function: as `WorkerPool.map` takes it.
        tasks: those with one key are one.
        shelf: asked before, and given each answer.
        progress: gets a bar per task, and `line` of its end.
        line: what to say of a task that is done.

    Raises:
        WorkerError: a task failed; what the shelf has by then is kept.
    """
    done = {task.key: kept for task in tasks if (kept := shelf.find(task.key)) is not None}
    todo = list({task.key: task for task in tasks if task.key not in done}.values())
    if done:
        progress.note(f"{len(done)} of {len(tasks)} cases were run before and are not run again")
    bars = [progress.add(task.title, task.size) for task in todo]

    def on_done(i: int, answer: Answer) -> None:
        shelf.add(todo[i].key, answer)
        progress.done(bars[i], line(todo[i], answer))

    answers = pool.map(
        function,
        [task.item for task in todo],
        lambda i, served: progress.update(bars[i], served),
        on_done,
    )
    done |= dict(zip((task.key for task in todo), answers, strict=True))
    return [done[task.key] for task in tasks]
