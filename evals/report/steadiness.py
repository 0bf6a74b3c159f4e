"""How steady was each arm while traffic changed? For scenarios in which it does.

Worst window and deviation are of 30-s windows; recovery as `evals.result.stability` says it. Called
by `sheets`.
"""

from collections.abc import Sequence
from statistics import fmean

from evals.report.load_curves import LoadCurves
from evals.report.sheet import Sheet
from evals.result.metrics import Result


def steadiness_sheets(curves: LoadCurves) -> list[Sheet]:
    """One sheet per load at which traffic changes in mid-run."""
    sheets = []
    for load in curves.loads:
        by_arm = {arm: list(curves.by_seed(load, arm).values()) for arm in curves.arms}
        changes = [each for results in by_arm.values() for each in _recoveries(results)]
        if changes:
            sheets.append(_sheet(curves, load, by_arm))
    return sheets


def _sheet(curves: LoadCurves, load: float, by_arm: dict[str, list[Result]]) -> Sheet:
    ranked = sorted(by_arm, key=lambda arm: -_mean(by_arm[arm], "worst"))
    note = (
        "30-s windows. Recovered: after how many of the changes attainment was back at 90%, or "
        "near where it was, and stayed until the next; the mean time is of those."
    )
    if curves.seeds > 1:
        note += " Means over seeds, changes of all seeds."
    return Sheet(
        f"Steadiness at {load:g}x, {curves.scenario}",
        ("arm", "worst window", "deviation", "minutes < 90%", "recovered", "after s", "switches/h"),
        [
            [
                arm,
                f"{_mean(by_arm[arm], 'worst'):.1%}",
                f"{_mean(by_arm[arm], 'deviation'):.3f}",
                f"{_mean(by_arm[arm], 'below_target_min'):.1f}",
                *_recovered(by_arm[arm]),
                f"{_mean(by_arm[arm], 'switches_per_hour'):.1f}",
            ]
            for arm in ranked
            if by_arm[arm]
        ],
        note,
    )


def _recoveries(results: Sequence[Result]) -> list[float | None]:
    return [
        change["recovery_s"]
        for result in results
        for change in result.get("stability", {}).get("recovery", ())
    ]


def _recovered(results: Sequence[Result]) -> tuple[str, str]:
    every = _recoveries(results)
    back = [seconds for seconds in every if seconds is not None]
    return f"{len(back)} of {len(every)}", f"{fmean(back):.0f}" if back else "-"


def _mean(results: Sequence[Result], key: str) -> float:
    return fmean(float(result["stability"][key]) for result in results) if results else 0.0
