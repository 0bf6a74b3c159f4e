"""Which of several runs of a case is best, and how far are they?

Shared by the arms: those that choose in hindsight run a case several times and keep the best.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from evals.recording import AppliedDecision
from evals.simulated_case import ArmRun, Chosen, OnProgress, SimulatedCase
from serving.contracts import Limits
from serving.engines.profile import EngineProfile

Candidate = TypeVar("Candidate")


class Parts:
    """Progress of an arm that runs a case `parts` times, as if it were one run.

    Args:
        on_progress: told a number of requests between 0 and `requests`.
        parts: how many runs there will be.
        requests: requests of the case.
    """

    def __init__(self, on_progress: OnProgress, parts: int, requests: int) -> None:
        self._on_progress, self._parts, self._requests = on_progress, parts, requests
        self._done = 0

    def next(self, parts: int = 1) -> OnProgress:
        """Where the next run, which takes as long as `parts`, reports its finished requests."""
        before = self._done * self._requests
        self._done += parts
        return lambda finished: self._on_progress((before + parts * finished) // self._parts)


def best_run(
    case: SimulatedCase,
    candidates: Sequence[Candidate],
    run: Callable[[Candidate], ArmRun],
) -> tuple[Candidate, ArmRun]:
    """The candidate whose run met most SLOs, and that run; of equals the first."""
    runs = [run(candidate) for candidate in candidates]
    best = max(range(len(runs)), key=lambda i: case.met(runs[i]))
    return candidates[best], runs[best]


def as_chosen(run: ArmRun, profile: EngineProfile, chosen: Chosen) -> ArmRun:
    """A stock engine's run with what was chosen for it, also as its one decision."""
    limits = Limits(profile.max_active_requests, profile.token_budget)
    reason = "best in hindsight: " + ", ".join(f"{key} {value}" for key, value in chosen.items())
    return replace(run, decisions=[AppliedDecision(0.0, "fcfs", limits, reason)], chosen=chosen)
