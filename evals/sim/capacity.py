"""How many requests per second can the engine complete? The unit of `load`.

Simulated: stock vLLM with every request offered at once. The rate is taken between
the 10th and the 80th percentile of completions, so neither the start (no request has
finished yet) nor the end (the batch runs empty) counts.
"""

from collections.abc import Sequence
from dataclasses import replace

from evals.arms.engine import BuildEngine, build_simulated
from evals.requests.scaling import WorkloadError
from evals.requests.scenario import LEAST_COMPLETIONS
from serving.contracts import Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile


def simulated_capacity_rps(
    profile: EngineProfile,
    settings: EngineSettings,
    requests: Sequence[TraceRequest],
    build_engine: BuildEngine = build_simulated,
) -> float:
    """Requests per second that stock FCFS completes when saturated.

    Raises:
        WorkloadError: too few requests finished to tell.
    """
    at_once = [replace(request, arrival_s=0.0) for request in requests]
    engine = build_engine(profile, settings, True)
    return saturated_rate_rps(engine.run(at_once))


def saturated_rate_rps(outcomes: Sequence[Outcome]) -> float:
    """Completions per second between the 10th and the 80th percentile of completions.

    Raises:
        WorkloadError: too few completions, or all at the same moment.
    """
    finished_s = sorted(o.finished_s for o in outcomes if o.finish in ("stop", "length"))
    low, high = round(0.1 * len(finished_s)), round(0.8 * len(finished_s))
    if len(finished_s) < LEAST_COMPLETIONS or finished_s[high] <= finished_s[low]:
        raise WorkloadError(
            f"{len(finished_s)} completed requests are too few to measure capacity: take more"
        )
    return (high - low) / (finished_s[high] - finished_s[low])
