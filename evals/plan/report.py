"""How does a plan read? Tables, the answer in a sentence per load, and a plot."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from evals.plan.plan import Result, needed
from evals.report.figures import INK, colours, plain, svg_file
from evals.report.sheet import Sheet

COLUMNS = 3  # of the plot


def sheets(results: Sequence[Result], meet: float) -> list[Sheet]:
    """A table of all figures for each policy, then the attainment of all side by side."""
    loads, counts, policies = (
        list(dict.fromkeys(one[key] for one in results)) for key in ("load", "replicas", "policy")
    )
    whole = [
        Sheet(
            policy,
            ["load", "replicas", "met", "met/s", "each", "TTFT p50", "p90", "p99", "TPOT p99",
             "queue"],
            [_row(one) for one in results if one["policy"] == policy],
        )
        for policy in policies
    ]  # fmt: skip
    met = {(one["load"], one["policy"], one["replicas"]): one["attainment"] for one in results}
    overview = Sheet(
        "Share of requests that met all their SLOs, by replicas",
        ["load, policy", *map(str, counts)],
        [
            [f"{load:g}x {policy}", *(f"{met[load, policy, count]:.0%}" for count in counts)]
            for load in loads
            for policy in policies
        ],
        "met/s: requests that met all their SLOs, per second; each: per replica; queue: most "
        f"that waited at once, on all replicas. Wanted: {meet:.0%}.",
    )
    return [*whole, overview]


def sentences(results: Sequence[Result], meet: float) -> list[str]:
    """The answer, a sentence per load."""
    by_load: dict[float, list[str]] = {}
    rates = {one["load"]: one["offered_rps"] for one in results}
    for one in needed(results, meet):
        enough, too_few = one["replicas"], one["too_few"]
        if enough is None:
            said = f"not with {_replicas(too_few)}"
        else:
            said = f"with {_replicas(enough)}"
            if too_few is not None:
                said += f" ({too_few} {'is' if too_few == 1 else 'are'} too few)"
        by_load.setdefault(one["load"], []).append(f"{said} under {one['policy']}")
    return [
        f"At load {load:g}x ({rates[load]:.1f} requests/s) {meet:.0%} meet their SLOs "
        f"{', '.join(parts)}."
        for load, parts in by_load.items()
    ]


def plot(results: Sequence[Result], meet: float) -> str:
    """Attainment over replicas as an SVG file's text: a panel per load, a line per policy."""
    loads, counts, policies = (
        list(dict.fromkeys(one[key] for one in results)) for key in ("load", "replicas", "policy")
    )
    palette = colours(policies)
    rows = -(-len(loads) // COLUMNS)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, min(COLUMNS, len(loads)), squeeze=False, sharey=True)
        panels = grid.ravel()
        for axes in panels[len(loads) :]:
            axes.set_axis_off()
        for axes, load in zip(panels, loads, strict=False):
            plain(axes)
            of_load = [one for one in results if one["load"] == load]
            for policy in policies:
                met = [one["attainment"] for one in of_load if one["policy"] == policy]
                axes.plot(counts, met, "o-", ms=3, color=palette[policy], label=policy)
            axes.axhline(meet, color=INK, lw=0.8, ls="--")
            axes.set_title(f"load {load:g}x, {of_load[0]['offered_rps']:.1f} requests/s")
            axes.set_xscale("log", base=2)
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_ylim(-0.03, 1.03)
        figure.supxlabel("replicas", fontsize=9)
        figure.supylabel("requests that met all their SLOs", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)

    return svg_file("plan", 0.8 + 2.2 * rows, draw)


def _row(one: Result) -> list[str]:
    ttft = one["ttft_s"]
    return [
        f"{one['load']:g}x", str(one["replicas"]), f"{one['attainment']:.1%}",
        f"{one['goodput_rps']:.1f}", f"{one['goodput_per_replica_rps']:.2f}",
        *(_seconds(ttft[f"p{p}"]) for p in (50, 90, 99)), _seconds(one["tpot_s"]["p99"]),
        f"{one['waiting_peak']:,}",
    ]  # fmt: skip


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1.0 else f"{value:.3g} s"


def _replicas(count: int) -> str:
    return f"{count} replica{'' if count == 1 else 's'}"
