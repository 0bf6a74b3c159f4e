"""What is the error of one simulated case? Live and simulated outcomes and steps, side by side.

Called by the fidelity run; the keys are the format of `hmas eval fidelity --json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evals.arms.case import SimulatedCase
from evals.machines.fit import step_errors
from evals.machines.steps import CalibrationError, Steps
from evals.result.metrics import CaseRun, Result, summarise
from serving.contracts import Outcome
from serving.perception.accounting import judge

# What the project asks of its simulator: points of attainment, and shares of the rest.
TARGET_POINTS, TARGET_SHARE = 5.0, 0.15
_LATENCIES = ("ttft_s", "tpot_s")
_PERCENTILES = ("p50", "p90")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case, live and simulated: the public result, and the outcomes for the plots."""

    result: Result
    live: Sequence[Outcome]
    simulated: Sequence[Outcome]


def compare(
    case: SimulatedCase, live: CaseRun, simulated: CaseRun, live_steps: Steps,
    simulated_steps: Steps, *, overhead_s: float,
) -> Comparison:  # fmt: skip
    """Errors of one case: simulated over live, minus 1; attainment in percentage points.

    Raises:
        CalibrationError: the live run has no step in the log.
    """
    if not len(live_steps):
        raise CalibrationError(
            f"{live.scenario} {live.load:g}x {live.arm}: the step log has no step of this run: "
            "is it the file that this server writes?"
        )
    shifted = [with_overhead(outcome, overhead_s) for outcome in simulated.outcomes]
    sides = {
        "live": _figures(case, live, live_steps),
        "simulated": _figures(case, replace(simulated, outcomes=shifted), simulated_steps),
    }
    raw = _figures(case, simulated, simulated_steps)
    result: Result = {
        "scenario": case.scenario, "load": case.load, "arm": case.arm.name,
        "requests": len(live.outcomes), "warmup_s": case.span.warmup_s, "overhead_s": overhead_s,
        "engine": f"simulated {case.profile.name}: {case.profile.provenance}",
        **sides,
        "error": errors(sides["live"], sides["simulated"]),
        "error_without_overhead": errors(sides["live"], raw),
        # The cost model on the shapes that really ran: what of the error is not scheduling.
        "step_model": step_errors(live_steps, case.profile.cost),
    }  # fmt: skip
    result["within_target"] = within_target(result["error"])
    return Comparison(result, live.outcomes, shifted)


def with_overhead(outcome: Outcome, overhead_s: float) -> Outcome:
    """The outcome as a client that far away sees it: first token and end that much later."""
    if outcome.ttft_s is None:
        return outcome
    ttft_s, e2e_s = outcome.ttft_s + overhead_s, outcome.e2e_s + overhead_s
    met, miss = judge(
        outcome.slo, outcome.queue_s, ttft_s, outcome.tpot_s, e2e_s, outcome.late_gaps,
        max(0, outcome.output_tokens - 1),
    )  # fmt: skip
    if outcome.finish not in ("stop", "length"):
        met, miss = False, outcome.miss
    return replace(
        outcome, ttft_s=ttft_s, e2e_s=e2e_s, finished_s=outcome.finished_s + overhead_s,
        met=met, miss=miss,
    )  # fmt: skip


def errors(live: Result, simulated: Result) -> dict[str, float | None]:
    """Errors by name; None where one side has no value."""
    found: dict[str, float | None] = {
        "attainment_points": 100 * (simulated["attainment"] - live["attainment"])
    }
    for latency in _LATENCIES:
        for p in _PERCENTILES:
            found[f"{latency.removesuffix('_s')}_{p}"] = _relative(
                live[latency][p], simulated[latency][p]
            )
    for which in ("mean", *_PERCENTILES):
        found[f"step_{which}"] = _relative(live["step_s"][which], simulated["step_s"][which])
    return found


def within_target(error: dict[str, float | None]) -> bool:
    """Whether attainment, TTFT and TPOT are as near as the project asks."""
    points = error["attainment_points"]
    shares = [value for name, value in error.items() if name.startswith(("ttft", "tpot"))]
    return (
        points is not None and abs(points) <= TARGET_POINTS
        and all(value is not None and abs(value) <= TARGET_SHARE for value in shares)
    )  # fmt: skip


def _figures(case: SimulatedCase, run: CaseRun, steps: Steps) -> Result:
    """As a suite counts them, live or simulated; steps are of the whole run."""
    # Clocks differ: both sides' time begins with their first arrival.
    span_s = case.span.counted_until_s - case.requests[0].arrival_s
    summary = summarise(run, span_s, warmup_s=case.span.warmup_s, contract=case.settings.contract)
    p50, p90 = np.percentile(steps.seconds, (50, 90))
    return {
        key: summary[key]
        for key in ("attainment", "attainment_by_class", "goodput_rps", "goodput_tokens_per_s",
                    "goodput_weighted_rps", *_LATENCIES, "not_served", "preemptions")
    } | {
        "steps": len(steps),
        "step_s": {"mean": float(steps.seconds.mean()), "p50": float(p50), "p90": float(p90)},
    }  # fmt: skip


def _relative(live: float | None, simulated: float | None) -> float | None:
    return None if live is None or simulated is None else simulated / live - 1
