"""How does one read what a controller of many replicas does and costs? Tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from evals.checks.replicas.flood import FIGURES
from evals.report.sheet import Sheet

Result = dict[str, Any]
_MEANING = {
    "beside_flood": "others, on the flooded replica", "others": "others, on all replicas",
    "flooder": "the flooding tenant", "all": "all requests",
    "over_mean": "too much in a tick, mean", "over_most": "too much in a tick, most",
    "bound_mean": "bound, mean",
}  # fmt: skip


def flood_sheets(compared: Iterable[Result]) -> list[Sheet]:
    """A table for each case and policy."""
    rows: dict[tuple[str, str], list[list[str]]] = {}
    for one in compared:
        form = "{:.1%}" if one["figure"] in FIGURES else "{:.2f}"
        signed = form.replace(":", ":+")
        difference = one["difference"]
        cells = [
            _MEANING[one["figure"]], form.format(one["replica"].mean),
            form.format(one["fleet"].mean),
            f"{signed.format(difference.mean)} ({signed.format(difference.low)} to "
            f"{signed.format(difference.high)})",
        ]  # fmt: skip
        rows.setdefault((one["case"], one["policy"]), []).append(cells)
    note = (
        "Share of the requests of the flood's time that met all their SLOs, and what the flooding "
        "tenant took beyond its share of the fleet, in parts of that share. Means, and 95% "
        "intervals of the paired difference."
    )
    heads = ("of", "shares per replica", "of the fleet", "difference")
    return [
        Sheet(f"Case {case}, {policy}", heads, each, note) for (case, policy), each in rows.items()
    ]


def scale_sheet(results: Sequence[Result], tick_s: float) -> Sheet:
    """A row for each number of replicas."""
    rows = [
        [
            f"{r['replicas']:,}", f"{r['requests']:,}", f"{r['attainment']:.1%}",
            f"{r['wall_s']:.1f}", f"{r['replicas_cpu_s']:.1f}",
            *(f"{r['controller_ms'][key]:.2f}" for key in ("merge", "shares", "messages")),
            f"{r['controller_ms']['p50']:.2f}", f"{r['controller_ms']['p99']:.2f}",
            f"{r['decisions_per_s']:,.0f}", f"{r['controller_share']:.1%}",
        ]
        for r in results
    ]  # fmt: skip
    heads = ("replicas", "requests", "met", "wall s", "CPU s", "merge", "shares", "messages",
             "tick p50", "p99", "decisions/s", "busy")  # fmt: skip
    note = (
        f"wall: of the whole run; CPU: of replicas and router; merge to p99: CPU ms of the "
        f"controller in a tick of {tick_s:g} s; busy: its share of the time."
    )
    return Sheet("One controller, many replicas", heads, rows, note)
