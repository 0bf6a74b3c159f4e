"""Which of several runs of a case is best?

Shared by the arms: those that choose in hindsight run a case several times and keep the best.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from evals.arms.case import SimulatedCase
from evals.result.metrics import CaseRun, Facts
from evals.result.recording import AppliedDecision
from serving.contracts import Limits
from serving.engines.profile import EngineProfile

Candidate = TypeVar("Candidate")


def best_run(
    case: SimulatedCase,
    candidates: Sequence[Candidate],
    run: Callable[[Candidate], CaseRun],
) -> tuple[Candidate, CaseRun]:
    """The candidate whose run met most SLOs, and that run; of equals the first."""
    runs = [run(candidate) for candidate in candidates]
    best = max(range(len(runs)), key=lambda i: case.met(runs[i]))
    return candidates[best], runs[best]


def as_chosen(run: CaseRun, profile: EngineProfile, chosen: Facts) -> CaseRun:
    """A stock engine's run with what was chosen for it, also as its one decision."""
    limits = Limits(profile.max_active_requests, profile.token_budget)
    reason = "best in hindsight: " + ", ".join(f"{key} {value}" for key, value in chosen.items())
    return replace(run, decisions=[AppliedDecision(0.0, "fcfs", limits, reason)], chosen=chosen)
