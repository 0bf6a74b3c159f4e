"""A forecaster that says what the test says, for every future alike or one by one."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hmas_agents.twin.process import WorkerLostError
from hmas_agents.twin.question import Answer, Candidate, Question
from hmas_agents.twin.search import search
from serving.engines.branches import Forecast


def forecasts(shares: Iterable[float]) -> tuple[Forecast, ...]:
    """One of each future, in which all that counts is decided by the end."""
    return tuple(Forecast(share, share) for share in shares)


class Scripted:
    """Answers by policy, a list by future; keeps what it was asked.

    `"lost"`: the worker is gone; any other text: that future failed. A policy that is not in the
    script is as good as `others`, which is nothing.

    Attributes:
        asked: (policy, future) of each trial, in order.
        limits: those that each policy was asked under last.
        candidates, situation: of the last question.
    """

    work_s = 0.0

    def __init__(self, others: float = 0.0, **answers: float | str | list[float]) -> None:
        self.others, self.answers = others, answers
        self.asked: list[tuple[str, int]] = []
        self.limits: dict[str, dict[str, Any]] = {}
        self.candidates: tuple[Candidate, ...] = ()

    def start(self) -> None:
        pass

    def wait_ready(self, limit_s: float | None) -> bool:
        return True

    def ask(self, question: Question) -> Answer:
        self.candidates, self.situation = question.candidates, question.situation
        return replace(search(question, self), offered=100.0)

    def close(self) -> None:
        pass

    def look_ahead(self, horizon_s: float) -> None:
        raise AssertionError("trials that cost nothing need not look less far")

    def forecast(self, candidate: Candidate, future: int) -> Forecast:
        self.asked.append((candidate.policy, future))
        self.limits[candidate.policy] = candidate.limits
        answer = self.answers.get(candidate.policy, self.others)
        if isinstance(answer, list):
            answer = answer[future]
        if answer == "lost":
            raise WorkerLostError("twin_timeout: out of its time budget")
        if isinstance(answer, str):
            raise ValueError(answer)  # noqa: TRY004  what a trial of the worker would raise
        return Forecast(answer, answer)
