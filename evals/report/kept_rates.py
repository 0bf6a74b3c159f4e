"""Up to which rate does each arm keep 90% (99%) of its promises?

Attainment is interpolated linearly over the offered rate between neighbouring loads, seed by
seed, from the lowest load to the first that falls below the target; nothing is extrapolated.
Called by `sheets`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal

from evals.report.load_curves import LoadCurves
from evals.report.sheet import Sheet
from evals.result.metrics import Result
from evals.result.statistics import Interval, mean_interval, paired_ratio

TARGETS = (0.9, 0.99)
BASE = "vllm-fcfs"

Side = Literal["", ">", "<"]  # exact, more than what was offered, less than that
_OTHER: dict[Side, Side] = {"": "", ">": "<", "<": ">"}


@dataclass(frozen=True, slots=True)
class KeptRate:
    """The rate up to which one seed keeps the target, and its multiple of capacity."""

    rps: float
    side: Side = ""
    times_capacity: float | None = None


def kept_rate(points: Sequence[tuple[float, float]], target: float) -> KeptRate:
    """Where attainment first falls below a target.

    Args:
        points: (offered rate in requests/s, attainment), at least one, in order of the rate.
        target: share of requests.
    """
    if points[0][1] < target:
        return KeptRate(points[0][0], "<")
    for (rate, met), (next_rate, next_met) in pairwise(points):
        if next_met < target:
            return KeptRate(rate + (met - target) / (met - next_met) * (next_rate - rate))
    return KeptRate(points[-1][0], ">")


def kept_rates(curves: LoadCurves, arm: str, target: float) -> dict[int | None, KeptRate]:
    """The rates of an arm by seed."""
    results: dict[int | None, list[Result]] = {}
    for load in curves.loads:
        for seed, result in curves.by_seed(load, arm).items():
            results.setdefault(seed, []).append(result)
    return {seed: _of_seed(each, target) for seed, each in results.items()}


def kept_rate_sheets(curves: LoadCurves) -> list[Sheet]:
    """One sheet, the best arm of each target first; none where there is one load only."""
    if len(curves.loads) < 2:
        return []
    rows: list[list[str]] = []
    for target in TARGETS:
        rates = {arm: kept_rates(curves, arm, target) for arm in curves.arms}
        ranked = sorted(rates, key=lambda arm: -fmean(r.rps for r in rates[arm].values()))
        rows += [_row(target, arm, rates[arm], rates.get(BASE, {})) for arm in ranked]
    note = (
        "Offered rate up to which so many requests met all their SLOs, interpolated between "
        "loads; >: still met at the highest load, <: not met at the lowest."
    )
    if curves.seeds > 1:
        note += " In parentheses 95% intervals over seeds."
    title = f"Highest rate with 90% and 99% met, {curves.scenario}"
    heads = ("met", "arm", "requests/s", "x capacity", f"vs {BASE}")
    return [Sheet(title, heads, rows, note, left_aligned=2)]


def _of_seed(results: Sequence[Result], target: float) -> KeptRate:
    points = sorted((float(r["offered_rps"]), float(r["attainment"])) for r in results)
    rate, capacity_rps = kept_rate(points, target), results[0].get("capacity_rps")
    times = rate.rps / float(capacity_rps) if capacity_rps else None
    return KeptRate(rate.rps, rate.side, times)


def _row(
    target: float, arm: str, rates: dict[int | None, KeptRate], base: dict[int | None, KeptRate]
) -> list[str]:
    side = _joined({rate.side for rate in rates.values()})
    multiples = [r.times_capacity for r in rates.values() if r.times_capacity is not None]
    return [
        f"{target:.0%}",
        arm,
        _text(side, mean_interval([rate.rps for rate in rates.values()])),
        _text(side, mean_interval(multiples), "x", exact=False) if multiples else "-",
        _ratio(rates, base),
    ]


def _ratio(rates: dict[int | None, KeptRate], base: dict[int | None, KeptRate]) -> str:
    seeds = [seed for seed in rates if seed in base]
    if not seeds:
        return "-"
    sides = {rates[seed].side for seed in seeds} | {_OTHER[base[seed].side] for seed in seeds}
    ratio = paired_ratio([base[s].rps for s in seeds], [rates[s].rps for s in seeds])
    return "-" if ratio is None else _text(_joined(sides), ratio, "x")


def _joined(sides: set[Side]) -> Side | None:
    """On which side of a mean the true one lies; None if some lie above and others below."""
    one_sided = sides - {""}
    if len(one_sided) > 1:
        return None
    return next(iter(one_sided), "")


def _text(side: Side | None, value: Interval, unit: str = "", *, exact: bool = True) -> str:
    """The mean, and its interval where it is no one-sided figure."""
    if side is None:
        return "-"
    text = f"{side}{value.mean:.2f}{unit}"
    if side or value.n == 1 or not exact:
        return text
    return f"{text} ({value.low:.2f}-{value.high:.2f})"
