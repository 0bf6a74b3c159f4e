"""How does goodput move with load, in requests per second and over the baselines?

Curves with bands (bootstrap intervals over seeds), bars where there is one load only. For the
page, one figure per scenario; as files of their own, one panel row per scenario.
"""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evals.report.figures import (
    INK,
    STOCK,
    Palette,
    legend,
    logarithmic,
    plain,
    svg,
    svg_file,
)
from evals.report.load_curves import LoadCurves
from evals.report.ratios import DRAWN, compared_arms
from evals.result.statistics import Interval

PAPER = (1.2, 3.0)  # Goodput over SGLang and vLLM, least and most, in the paper's abstract
PAPER_LABEL = "paper, abstract: 1.2x-3.0x,\nother hardware and settings"
LOG_ABOVE = 5.0

Draw = Callable[[Figure], None]


def goodput_figure(curves: LoadCurves, palette: Palette) -> str:
    """Goodput over load of every arm, the offered rate and the upper bound, as inline SVG."""
    name = f"goodput-{curves.scenario}"
    return svg(name, _goodput_height(curves), _goodput_panels([curves], palette))


def ratio_figure(curves: LoadCurves, palette: Palette) -> str:
    """Goodput over each baseline that ran, as inline SVG; empty where there is nothing to draw.

    At one load a ratio is a dot: the table says it better.
    """
    if not baselines(curves) or len(curves.loads) < 2:
        return ""
    return svg(f"ratio-{curves.scenario}", 3.0, _ratio_panels([curves], palette))


def goodput_file(every: Sequence[LoadCurves], palette: Palette) -> str:
    """All scenarios below each other, as the text of an SVG file."""
    height = sum(map(_goodput_height, every))
    return svg_file("goodput", height, _goodput_panels(every, palette))


def ratio_file(every: Sequence[LoadCurves], palette: Palette) -> str:
    """The same of ratios; empty where no scenario has a baseline and several loads."""
    drawn = [curves for curves in every if baselines(curves) and len(curves.loads) > 1]
    if not drawn:
        return ""
    return svg_file("ratio", 3.0 * len(drawn), _ratio_panels(drawn, palette))


def baselines(curves: LoadCurves) -> list[str]:
    """The baselines of a scenario over which some arm has a ratio."""
    return [
        base
        for base in DRAWN
        if any(
            curves.ratio(load, arm, base)
            for load in curves.loads
            for arm in compared_arms(curves)
        )
    ]


def _goodput_height(curves: LoadCurves) -> float:
    return 3.4 if len(curves.loads) > 1 else 1.0 + 0.19 * len(curves.arms)


def _goodput_panels(every: Sequence[LoadCurves], palette: Palette) -> Draw:
    def draw(figure: Figure) -> None:
        heights = [_goodput_height(curves) for curves in every]
        grid = figure.subplots(len(every), 1, squeeze=False, height_ratios=heights)
        for axes, curves in zip(grid[:, 0], every, strict=True):
            plain(axes)
            if len(curves.loads) > 1:
                _goodput_lines(axes, curves, palette)
                legend(axes)
            else:
                _goodput_bars(axes, curves, palette)
                legend(axes, x=1.1)  # right of the figures
            if len(every) > 1:
                axes.set_title(curves.scenario, loc="left")

    return draw


def _goodput_lines(axes: Axes, curves: LoadCurves, palette: Palette) -> None:
    strong = curves.strong_arms()
    weak = [arm for arm in curves.arms if arm not in strong]
    most = 0.0
    for arm in strong:
        loads, points = _points(curves, arm)
        label = f"{arm} (best fixed)" if weak and arm == curves.best_fixed else arm
        _line_with_band(axes, loads, points, palette[arm], label, strong=arm == "hmas")
        most = max([most, *(p.high for p in points)])
    for i, arm in enumerate(weak):
        loads, points = _points(curves, arm)
        axes.plot(
            loads, [p.mean for p in points], color=INK, alpha=0.35, lw=0.6, zorder=1,
            label=f"{len(weak)} other arms" if i == 0 else None,
        )  # fmt: skip
        most = max([most, *(p.mean for p in points)])
    bounds = [(load, b) for load in curves.loads if (b := _bound(curves, load)) is not None]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), "--", color=INK, lw=1.5, label="upper bound")
    offered = [(load, curves.mean_of_any(load, "offered_rps")) for load in curves.loads]
    axes.plot(*zip(*offered, strict=True), ":", color=INK, lw=0.9, label="offered")
    axes.set_ylim(0, 1.1 * max([most, *(bound for _, bound in bounds)]) or 1.0)
    axes.set_xlabel("offered load, times capacity")
    axes.set_ylabel("goodput (requests/s)")


def _goodput_bars(axes: Axes, curves: LoadCurves, palette: Palette) -> None:
    """One load: a horizontal bar per arm, so that names have room however many there are."""
    load, strong = curves.loads[0], curves.strong_arms()
    for y, arm in enumerate(curves.arms):
        goodput = curves.interval(load, arm, "goodput_rps")
        if goodput is None:
            continue
        colour, alpha = (palette[arm], 1.0) if arm in strong else (INK, 0.35)
        axes.barh(y, goodput.mean, 0.75, color=colour, alpha=alpha)
        if goodput.n > 1:
            axes.plot([goodput.low, goodput.high], [y, y], color=INK, lw=1.2)
        axes.text(
            1.01, y, f"{goodput.mean:.2f}", transform=axes.get_yaxis_transform(), va="center",
            fontsize=8,
        )  # fmt: skip
    for value, line, label in (
        (_bound(curves, load), "--", "upper bound"),
        (curves.mean_of_any(load, "offered_rps"), ":", "offered"),
    ):
        if value is not None:
            axes.axvline(value, ls=line, color=INK, lw=1.2, label=label)
    axes.set_yticks(range(len(curves.arms)), curves.arms, fontsize=8)
    axes.set_ylim(len(curves.arms) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    axes.set_xlabel(f"goodput (requests/s) at {load:g}x capacity")


def _ratio_panels(every: Sequence[LoadCurves], palette: Palette) -> Draw:
    def draw(figure: Figure) -> None:
        columns = [base for base in DRAWN if any(base in baselines(c) for c in every)]
        grid = figure.subplots(len(every), len(columns), squeeze=False, sharey="row")
        for row, curves in zip(grid, every, strict=True):
            for axes, base in zip(row, columns, strict=True):
                plain(axes)
                _ratio_lines(axes, curves, base, palette)
                title = f"over {base}"
                axes.set_title(f"{curves.scenario}, {title}" if len(every) > 1 else title)
            _scale_ratios(row[0], curves)
            row[0].set_ylabel("goodput ratio")
            legend(row[-1], x=1.1)  # right of the names of the paper's lines
        figure.supxlabel("offered load, times capacity", fontsize=9)

    return draw


def _ratio_lines(axes: Axes, curves: LoadCurves, base: str, palette: Palette) -> None:
    best, arms = curves.best_fixed, compared_arms(curves)
    for i, arm in enumerate(arms):
        found = [(load, r) for load in curves.loads if (r := curves.ratio(load, arm, base))]
        loads, ratios = [load for load, _ in found], [ratio for _, ratio in found]
        label = f"best fixed:\n{arm}" if arm == best else arm
        if len(curves.loads) == 1:  # points, side by side
            loads = [load + 0.1 * (i - (len(arms) - 1) / 2) for load in loads]
        _line_with_band(axes, loads, ratios, palette[arm], label, strong=arm == "hmas")
    axes.axhline(1.0, color=STOCK, lw=0.8)
    for i, ratio in enumerate(PAPER):
        axes.axhline(
            ratio, color=INK, lw=0.8, ls=(0, (1, 2)), label=PAPER_LABEL if i == 0 else None
        )
        axes.text(
            1.01, ratio, f"{ratio:.1f}x", transform=axes.get_yaxis_transform(), va="center",
            fontsize=8,
        )  # fmt: skip
    if len(curves.loads) == 1:
        axes.set_xticks(curves.loads, [f"{load:g}" for load in curves.loads])
        axes.set_xlim(curves.loads[0] - 0.3, curves.loads[0] + 0.3)


def _scale_ratios(axes: Axes, curves: LoadCurves) -> None:
    """The axis that the panels of a row share: from 0, or logarithmic where ratios are large."""
    seen = [
        ratio
        for base in baselines(curves)
        for arm in compared_arms(curves)
        for load in curves.loads
        if (ratio := curves.ratio(load, arm, base)) is not None
    ]
    most, least = max(r.high for r in seen), min(r.low for r in seen)
    if most > LOG_ABOVE and least > 0:
        logarithmic(axes, "y", "{x:g}x")
        axes.set_ylim(min(0.8, least / 1.2), most * 1.2)
    else:
        axes.set_ylim(0, 1.08 * max(most, *PAPER))
        axes.yaxis.set_major_formatter("{x:g}x")


def _line_with_band(
    axes: Axes,
    loads: Sequence[float],
    points: Sequence[Interval],
    colour: str,
    label: str,
    *,
    strong: bool,
) -> None:
    """Means as a line; intervals as a band, or as a bar where there is one point only."""
    width = 2.2 if strong else 1.4
    axes.plot(
        loads, [p.mean for p in points], "o-", ms=3, color=colour, lw=width, label=label,
        zorder=3 if strong else 2,
    )  # fmt: skip
    if all(p.n == 1 for p in points):
        return
    lows, highs = [p.low for p in points], [p.high for p in points]
    if len(loads) == 1:
        axes.vlines(loads, lows, highs, color=colour, lw=width)
    else:
        axes.fill_between(loads, lows, highs, color=colour, alpha=0.18, lw=0)


def _points(curves: LoadCurves, arm: str) -> tuple[list[float], list[Interval]]:
    found = [(load, curves.interval(load, arm, "goodput_rps")) for load in curves.loads]
    known = [(load, point) for load, point in found if point is not None]
    return [load for load, _ in known], [point for _, point in known]


def _bound(curves: LoadCurves, load: float) -> float | None:
    return curves.mean_of_any(load, "bound_rps")
