"""How far is the run? Bars on standard error; standard output stays clean."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

_LINE_EVERY_S = 30.0


class CaseProgress:
    """Progress of cases; used as a context manager. Without a terminal it prints lines only."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._said_s = time.monotonic()  # when a line last told of a case that goes on
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def counting(self, jobs: int) -> Iterator[Callable[[str], None]]:
        """One bar for so many jobs; to be told how each of them ended."""
        bar = self._bars.add_task("cases", total=jobs)

        def done(line: str) -> None:
            self.note(line)
            self._bars.advance(bar)

        try:
            yield done
        finally:
            self._bars.remove_task(bar)

    def add(self, title: str, requests: int) -> TaskID:
        """A bar for a case that will start; returns its id."""
        return self._bars.add_task(title, total=requests, start=False, visible=False)

    def update(
        self, bar: TaskID, finished: int, title: str | None = None, total: int | None = None
    ) -> None:
        """`finished` requests of the case are through; without a terminal a new title is a line."""
        self._bars.start_task(bar)
        self._bars.update(bar, completed=finished, visible=True, description=title, total=total)
        now_s = time.monotonic()
        if title and not self.console.is_terminal and now_s - self._said_s >= _LINE_EVERY_S:
            self._said_s = now_s
            self.note(f"{title}: {finished} of {total}" if total else title)

    def done(self, bar: TaskID, line: str) -> None:
        """The case is over; `line` says how it ended."""
        self._bars.update(bar, visible=False)
        self.note(line)

    def note(self, line: str) -> None:
        """What happens now."""
        self.console.print(line, markup=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        """Something the reader of the results must know."""
        self.note(f"warning: {line}")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """One bar, described anew at each call: what, done, of how many if that is known."""
    with CaseProgress() as progress:
        bar = progress.add("building", 0)
        yield lambda title, done, total: progress.update(bar, done, title, total)
