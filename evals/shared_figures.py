"""Which figures do all arms share? Capacity, and the bound: computed once, called by `runner`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evals.baselines.sglang_emulated import CHUNKS
from evals.baselines.tuned import token_budgets
from evals.bound import upper_bound
from evals.capacity import simulated_capacity_rps
from evals.workloads.scaling import span_s
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

Figures = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class CapacityCase:
    """A capacity to measure: `capacity_rps`, of stock vLLM."""

    requests: Sequence[TraceRequest]
    profile: EngineProfile
    settings: EngineSettings


@dataclass(frozen=True, slots=True)
class BoundCase:
    """A workload at a load, to be bounded for every arm there is."""

    requests: Sequence[TraceRequest]
    profile: EngineProfile
    settings: EngineSettings
    drain_s: float
    warmup_s: float


def measure_capacity(case: CapacityCase, on_progress: Callable[[int], None]) -> Figures:
    """Requests per second that stock vLLM completes."""
    rate_rps = simulated_capacity_rps(case.profile, case.settings, case.requests, on_progress)
    return {"capacity_rps": rate_rps}


def bound_of(case: BoundCase, _on_progress: Callable[[int], None]) -> Figures:
    """The most goodput that any scheduler could reach, and what limits it.

    Of the requests that count: those of the warm-up cost nothing here, which can only raise
    it. The step is as large as any arm's may be, for the same reason.
    """
    from_s = case.requests[0].arrival_s + case.warmup_s
    counted = [request for request in case.requests if request.arrival_s >= from_s]
    budget = max(*token_budgets(case.profile), *CHUNKS)
    bound = upper_bound(
        counted, replace(case.profile, token_budget=budget), case.settings, case.drain_s
    )
    met_rps = bound.met / (span_s(case.requests) - case.warmup_s)
    return {"bound_rps": met_rps, "bound_binding": bound.binding}
