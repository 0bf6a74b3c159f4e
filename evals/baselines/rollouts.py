"""What would come of a choice? Copies of this process make it and run on for a while.

A simulated run lives on the stack of `run`, which calls back from its middle; nothing but a
fork copies that. Copies are tried one after the other. Used by the arm `hindsight-switching`.
"""

import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class Rollouts:
    """Tries choices in copies of the process.

    Args:
        now: seconds on the clock of the run.
        score: what came of the run so far; more is better.

    Attributes:
        in_copy: whether this process is such a copy, and not the run that counts.
    """

    def __init__(self, now: Callable[[], float], score: Callable[[], int]) -> None:
        self._now, self._score = now, score
        self._answer: int | None = None
        self._until_s = 0.0

    @property
    def in_copy(self) -> bool:
        """See the class."""
        return self._answer is not None

    def try_each(
        self, choices: Sequence[str], make: Callable[[str], None], horizon_s: float
    ) -> list[int]:
        """The score that each choice leads to, `horizon_s` after now or at the run's end.

        In a copy, which has made its choice and is to run on, the answer is empty.

        Raises:
            RuntimeError: a copy failed; has its traceback.
        """
        scores = []
        for choice in choices:
            reader, writer = os.pipe()
            copy = os.fork()
            if copy == 0:
                os.close(reader)
                self._answer, self._until_s = writer, self._now() + horizon_s
                make(choice)
                return []
            os.close(writer)
            scores.append(_await(copy, reader, choice))
        return scores

    def leave_if_over(self) -> None:
        """In a copy whose time is over: answer, and never return."""
        if self.in_copy and self._now() >= self._until_s:
            self._leave({"score": self._score()})

    @contextmanager
    def around_run(self) -> Iterator[None]:
        """Goes around the whole run: no copy may get beyond it, whatever happens."""
        try:
            yield
        except BaseException:
            if self.in_copy:
                self._leave({"failure": traceback.format_exc()})
            raise
        if self.in_copy:
            self._leave({"score": self._score()})

    def _leave(self, answer: dict[str, int | str]) -> None:
        assert self._answer is not None
        try:
            os.write(self._answer, json.dumps(answer).encode())
        finally:
            os._exit(0)


def _await(copy: int, reader: int, choice: str) -> int:
    try:
        with open(reader, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(copy, signal.SIGKILL)
        raise
    finally:
        os.waitpid(copy, 0)
    said = json.loads(answer or '{"failure": "it ended without an answer"}')
    if "failure" in said:
        raise RuntimeError(f"the rollout of {choice!r} failed: {said['failure']}")
    return int(said["score"])
