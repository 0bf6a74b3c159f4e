"""How many times the goodput of the baselines does each contender reach?

Ratios are paired by seed: the same arrivals for both. Called by `load_figures` for the curves,
and by `sheets` for the same as tables.
"""

from evals.report.load_curves import LoadCurves
from evals.report.sheet import Sheet
from evals.result.statistics import Interval

DRAWN = ("vllm-fcfs", "sglang-emulated", "sglang")  # the last: a server of that name, live
BASELINES = ("vllm-fcfs", "vllm-tuned", "sglang-emulated", "sglang-emulated-tuned", "sglang")
CONTENDERS = ("hmas", "rules-only")


def compared_arms(curves: LoadCurves) -> list[str]:
    """H-MAS, rules only and the best fixed arm, as far as they ran."""
    wanted = (*CONTENDERS, curves.best_fixed)
    return [arm for arm in wanted if arm is not None and arm in curves.arms]


def ratio_sheets(curves: LoadCurves) -> list[Sheet]:
    """One sheet per baseline that ran; none where there is nobody to compare with it."""
    arms = compared_arms(curves)
    return [_sheet(curves, base, arms) for base in BASELINES if arms and base in curves.arms]


def _sheet(curves: LoadCurves, base: str, arms: list[str]) -> Sheet:
    best = curves.best_fixed
    note = "Goodput over that of the baseline, on the same arrivals."
    if curves.seeds > 1:
        note += " In parentheses 95% intervals over seeds, in pairs."
    if best is not None:
        note += f" Best fixed: highest attainment over all loads, on these very requests ({best})."
    rows = [
        [f"{load:g}x", *(_text(curves.ratio(load, arm, base)) for arm in arms)]
        for load in curves.loads
    ]
    return Sheet(f"Goodput over {base}, {curves.scenario}", ("load", *arms), rows, note)


def _text(ratio: Interval | None) -> str:
    """`1.20x (1.10-1.31)`; of one seed without an interval."""
    if ratio is None:
        return "-"
    if ratio.n == 1:
        return f"{ratio.mean:.2f}x"
    return f"{ratio.mean:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})"
