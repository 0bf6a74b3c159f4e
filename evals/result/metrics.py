"""How good was a run? Outcomes in, one result object out.

Goodput is requests that met all their SLOs per second of the offered span. Every
offered request counts: what was rejected, aborted, demoted or not finished is a miss.
Only a warm-up that the suite asks for is left out, by arrival.
Called by the runners; the keys are the public format of `hmas eval run --json`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evals.result.recording import AppliedDecision, count_switches
from evals.result.stability import WINDOW_S, stability
from serving.contracts import Outcome

PERCENTILES = (50, 90, 99)
NOT_SERVED = ("aborted", "error", "rejected", "unfinished")

Result = dict[str, Any]
Facts = Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class CaseRun:
    """What came of one case (scenario, load, arm).

    `recomputed_tokens` are computed tokens that `preemptions` threw away; `chosen` is what an
    arm that chooses in hindsight chose.
    """

    scenario: str
    load: float
    arm: str
    outcomes: Sequence[Outcome]
    decisions: Sequence[AppliedDecision]
    preemptions: int = 0
    recomputed_tokens: int = 0
    chosen: Facts = field(default_factory=dict)


def summarise(
    run: CaseRun, span_s: float, *, warmup_s: float = 0.0, moments_s: Sequence[float] = ()
) -> Result:
    """The result object of one run.

    Args:
        run: one outcome per offered request, in any order.
        span_s: last minus first offered arrival, the same for every arm.
        warmup_s: requests that arrive earlier after the first count for nothing. Switches,
            preemptions and recomputed tokens are of the whole run.
        moments_s: when traffic changes, seconds after the first arrival.

    Raises:
        ValueError: no outcomes, or a span that is not longer than the warm-up.
    """
    start_s = min((outcome.arrival_s for outcome in run.outcomes), default=0.0)
    outcomes = [o for o in run.outcomes if o.arrival_s >= start_s + warmup_s]
    whole_s, span_s = span_s, span_s - warmup_s
    if not outcomes or span_s <= 0:
        raise ValueError(
            f"{len(run.outcomes)} outcomes over {whole_s} s, of which warmup_s = {warmup_s:g} "
            "do not count, have no goodput: take more requests"
        )
    by_tenant = attainment_by(outcomes, lambda outcome: outcome.tenant)
    worst = min(by_tenant, key=lambda tenant: (by_tenant[tenant], tenant))
    return {
        "scenario": run.scenario,
        "load": run.load,
        "arm": run.arm,
        "requests": len(outcomes),
        "warmup_requests": len(run.outcomes) - len(outcomes),
        "goodput_rps": sum(outcome.met for outcome in outcomes) / span_s,
        "attainment": _share(outcomes),
        "attainment_by_class": attainment_by(outcomes, lambda outcome: outcome.slo_class),
        "attainment_by_tenant": by_tenant,
        "ttft_s": percentiles(outcome.ttft_s for outcome in outcomes),
        "tpot_s": percentiles(outcome.tpot_s for outcome in outcomes),
        "not_served": sum(outcome.finish in NOT_SERVED for outcome in outcomes),
        "jain_by_tenant": jain_index(list(by_tenant.values())),
        "worst_tenant": worst,
        "offered_rps": len(outcomes) / span_s,
        "switches": count_switches(run.decisions),
        "preemptions": run.preemptions,
        "recomputed_tokens": run.recomputed_tokens,
        "chosen": dict(run.chosen),
        "stability": stability(
            windowed_attainment(outcomes, start_s),
            warmup_s,
            warmup_s + span_s,
            moments_s,
            count_switches(run.decisions),
        ),
    }


def attainment_by(outcomes: Iterable[Outcome], key: Callable[[Outcome], str]) -> dict[str, float]:
    """Share of requests that met all their SLOs, per group, sorted by group."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return {group: _share(groups[group]) for group in sorted(groups)}


def percentiles(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """p50, p90, p99 (linear interpolation) of the values there are; `none`: how many lack one."""
    every = list(values)
    known = [value for value in every if value is not None]
    missing: dict[str, float | int | None] = {"none": len(every) - len(known)}
    if not known:
        return {f"p{p}": None for p in PERCENTILES} | missing
    points = np.percentile(known, PERCENTILES)
    return {f"p{p}": float(x) for p, x in zip(PERCENTILES, points, strict=True)} | missing


def jain_index(values: Sequence[float]) -> float | None:
    """Jain's fairness index (sum x)^2 / (n sum x^2): 1 is even, 1/n one takes all.

    None when every value is 0. Source: Jain, Chiu and Hawe, DEC-TR-301 (1984).
    """
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None


def windowed_attainment(
    outcomes: Sequence[Outcome], start_s: float, window_s: float = WINDOW_S
) -> list[tuple[float, float]]:
    """(middle of the window in seconds after `start_s`, attainment of its arrivals), in order."""
    windows: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        windows.setdefault(int((outcome.arrival_s - start_s) // window_s), []).append(outcome)
    return [((i + 0.5) * window_s, _share(windows[i])) for i in sorted(windows)]


def rounded(value: Any, digits: int = 6) -> Any:
    """The same JSON value with every float rounded, so that equal runs print equal bytes.

    Infinity, the end of an interval without one, becomes None.
    """
    if isinstance(value, float):
        return None if math.isinf(value) else round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value


def _share(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.met for outcome in outcomes) / len(outcomes)
