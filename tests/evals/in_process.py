"""How do tests run jobs without worker processes? In place of `evals.sim.workers.Workers`."""

from typing import Self


class InProcess:
    """Workers that are none; keeps what it was asked for."""

    def __init__(self, *_):
        self.titles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_):
        pass

    def run(self, function, items, title, line):
        answers = [function(item) for item in items]
        self.titles += [title(item) for item in items]
        assert all(self.titles)
        assert all(line(item, answer) for item, answer in zip(items, answers, strict=True))
        return answers
