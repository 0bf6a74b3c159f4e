"""How well does stock vLLM do when it turns requests away in time?

The arm `vllm-admission`: vLLM's `--max-num-queued-tokens` at vLLM's other defaults. The limit
is chosen as in `evals.arms.tuned`, from the times below and no limit at all; what it
turns away is a miss.
"""

from evals.arms.best_run import as_chosen, best_run
from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.arms.tuned import run_stock
from evals.result.metrics import CaseRun, Facts
from serving.engines.profile import EngineProfile

QUEUED_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
NO_LIMIT = "none"


def run_admission(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """The best run; `chosen` has `max_num_queued_tokens`, a number or `none`."""
    limits = [None, *(queued_tokens(case.profile, seconds) for seconds in QUEUED_S)]

    def run(limit: int | None) -> CaseRun:
        if limit is None:
            return run_stock(case, case.profile, build_engine)
        return run_with_limit(case, limit)

    limit, best = best_run(case, limits, run)
    chosen: Facts = {"max_num_queued_tokens": NO_LIMIT if limit is None else limit}
    return as_chosen(best, case.profile, chosen)


def run_with_limit(case: SimulatedCase, max_num_queued_tokens: int) -> CaseRun:
    """Stock vLLM with one limit on the prompt tokens still in prefill."""
    from serving.engines.compiled import CompiledEngine

    engine = CompiledEngine(
        case.profile, case.settings, stock=True, max_num_queued_tokens=max_num_queued_tokens
    )
    outcomes = engine.run(case.requests, until_s=case.until_s)
    return case.ran(outcomes, engine.recomputed_tokens)


def queued_tokens(profile: EngineProfile, seconds: float) -> int:
    """`target_TTFT * prefill_throughput`, as vLLM's documentation advises.

    The throughput is that of full prefill steps: budget / (base + per prefill token * budget).
    """
    cost, budget = profile.cost, profile.token_budget
    return round(seconds * budget / (cost.base_s + cost.per_prefill_token_s * budget))
