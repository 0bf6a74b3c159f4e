"""Which tables go with a run beside the results themselves? Those over all loads.

Called by `page` and `table`, so that HTML, Markdown and terminal show the same.
"""

from collections.abc import Sequence

from evals.report.bound_share import bound_sheets
from evals.report.kept_rates import kept_rate_sheets
from evals.report.load_curves import LoadCurves, load_curves
from evals.report.ratios import ratio_sheets
from evals.report.sheet import Sheet
from evals.report.steadiness import steadiness_sheets
from evals.result.metrics import Result


def load_sheets(curves: LoadCurves) -> list[Sheet]:
    """Of one scenario: highest rate kept, ratios to baselines, share of the bound, steadiness."""
    return [
        *kept_rate_sheets(curves),
        *ratio_sheets(curves),
        *bound_sheets(curves),
        *steadiness_sheets(curves),
    ]


def all_load_sheets(results: Sequence[Result]) -> list[Sheet]:
    """The same for every scenario, from results of every seed."""
    return [sheet for curves in load_curves(results) for sheet in load_sheets(curves)]
