"""How near does each arm come to the most that any scheduler could have reached?

For results that have the keys `bound_rps`, `bound_share` and `bound_binding`; others give no
sheet and no column. Called by `sheets` and `table`.
"""

from collections.abc import Sequence
from statistics import fmean

from evals.report.load_curves import LoadCurves
from evals.report.sheet import Sheet
from evals.result.metrics import Result


def has_bound(results: Sequence[Result]) -> bool:
    """Whether any result has a bound."""
    return any(result.get("bound_rps") is not None for result in results)


def bound_sheets(curves: LoadCurves) -> list[Sheet]:
    """One sheet: the bound per load, what binds it, and the share of it per arm."""
    loads = curves.loads
    bounds = [curves.mean_of_any(load, "bound_rps") for load in loads]
    if all(bound is None for bound in bounds):
        return []
    return [
        Sheet(
            f"Share of the upper bound, {curves.scenario}",
            ("arm", *(f"{load:g}x" for load in loads)),
            [
                ["bound, requests/s", *("-" if b is None else f"{b:.2f}" for b in bounds)],
                ["what binds", *(_binding(curves, load) or "-" for load in loads)],
                *([arm, *(_share(curves, load, arm) for load in loads)] for arm in curves.arms),
            ],
            "Goodput over the most that any scheduler could have reached on these requests; the "
            "bound is not always reachable." + (" Means over seeds." if curves.seeds > 1 else ""),
        )
    ]


def _share(curves: LoadCurves, load: float, arm: str) -> str:
    shares = [r.get("bound_share") for r in curves.by_seed(load, arm).values()]
    known = [float(share) for share in shares if share is not None]
    return f"{fmean(known):.0%}" if known else "-"


def _binding(curves: LoadCurves, load: float) -> str:
    """What binds in some seed, each once."""
    found = [
        str(result.get("bound_binding") or "")
        for arm in curves.arms
        for result in curves.by_seed(load, arm).values()
    ]
    return "/".join(dict.fromkeys(each for each in found if each))
