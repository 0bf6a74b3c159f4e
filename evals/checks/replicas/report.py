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


def routing_sheets(compared: Iterable[Result]) -> list[Sheet]:
    """A table for each scenario and load."""
    rows: dict[tuple[str, float], list[list[str]]] = {}
    for one in compared:
        more, p = one["ours_more"], one["p"]
        name = one["router"]
        if one["imbalance"] is not None:
            name += f" ({one['imbalance']:g})"
        rows.setdefault((one["scenario"], one["load"]), []).append([
            name, "{0.mean:.1%} ({0.low:.1%} to {0.high:.1%})".format(one["attainment"]),
            "-" if p is None else f"{more.mean * 100:+.1f} ({more.low * 100:+.1f} to "
            f"{more.high * 100:+.1f})",
            "-" if p is None else f"{p:.3f}",
            f"{one['goodput_rps'].mean:.2f}", f"{one['cached_share'].mean:.0%}",
            f"{one['ttft_p50_s'].mean:.2f}", f"{one['ttft_p90_s'].mean:.2f}",
        ])  # fmt: skip
    heads = ("router", "met", "deadline more, points", "p", "goodput/s", "cached", "TTFT p50",
             "p90")  # fmt: skip
    note = (
        "Means over seeds, 95% intervals, differences in pairs by seed; p: paired t test, adjusted "
        "for the number of routers (Holm). In brackets behind a tuned router: its imbalance. "
        "cached: of prompt tokens. Times in s."
    )
    return [
        Sheet(f"{scenario}, {load:g}x", heads, each, note)
        for (scenario, load), each in rows.items()
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
