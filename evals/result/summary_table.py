"""Which figures of a run go into a spreadsheet? One row per scenario, load, arm and seed.

Called by `run_files`; the rows are small enough to be kept where results.json is not.
"""

import csv
import io
from collections.abc import Sequence

from evals.result.metrics import Result, rounded

# Keys of a result, and of what lies inside it.
COLUMNS = {
    "scenario": ("scenario",),
    "load": ("load",),
    "arm": ("arm",),
    "seed": ("seed",),
    "requests": ("requests",),
    "capacity_rps": ("capacity_rps",),
    "offered_rps": ("offered_rps",),
    "goodput_rps": ("goodput_rps",),
    "attainment": ("attainment",),
    "bound_rps": ("bound_rps",),
    "bound_share": ("bound_share",),
    "bound_binding": ("bound_binding",),
    "ttft_p50_s": ("ttft_s", "p50"),
    "ttft_p90_s": ("ttft_s", "p90"),
    "tpot_p50_s": ("tpot_s", "p50"),
    "tpot_p90_s": ("tpot_s", "p90"),
    "not_served": ("not_served",),
    "worst_tenant": ("worst_tenant",),
    "jain_by_tenant": ("jain_by_tenant",),
    "worst_window": ("stability", "worst"),
    "window_deviation": ("stability", "deviation"),
    "switches": ("switches",),
    "preemptions": ("preemptions",),
    "recomputed_tokens": ("recomputed_tokens",),
    "chosen": ("chosen",),
}


def summary_csv(results: Sequence[Result]) -> str:
    """The table as text; what a result does not say stays empty."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    rows.writeheader()
    for result in results:
        rows.writerow({name: _cell(result, path) for name, path in COLUMNS.items()})
    return text.getvalue()


def _cell(result: Result, path: Sequence[str]) -> object:
    value: object = result
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict):
        return " ".join(f"{key}={each}" for key, each in value.items())
    return rounded(value)
