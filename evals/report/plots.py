"""How does goodput move with load? In requests per second, and over the baselines.

Lines with bands (95% intervals over seeds), bars where there is one load only.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evals.report.figures import (
    INK,
    STOCK_COLOUR,
    Palette,
    drawn_arms,
    legend,
    logarithmic,
    plain,
    svg_file,
)
from evals.report.summary import MET_NAMED, MET_OTHERS, Summary
from evals.result.statistics import Interval
from evals.suite.contenders import HMAS, TOLD

BASELINES = (
    "vllm-fcfs", "vllm-tuned", "vllm-priority-deadline", "sglang-emulated", "sglang-mixed",
    "sglang",
)  # fmt: skip
PAPER = (1.2, 3.0)  # goodput over SGLang and vLLM, least and most, in the paper's abstract
PAPER_LABEL = "paper, abstract: 1.2x-3.0x,\nother hardware and settings"
LOG_ABOVE = 5.0
MOST_DRAWN = 2.0  # times its mean: intervals of very few seeds would hide all else
SHARED = (("bound_rps", "--", "upper bound"), ("offered_rps", ":", "offered"))

Stretch = tuple[str, Summary]


def goodput_svg(stretches: Sequence[Stretch], palette: Palette) -> str:
    """Goodput over load of every arm, the offered rate and the upper bound, as an SVG file.

    Scenarios are below each other.
    """
    heights = [
        3.4 if len(cases.each("load")) > 1 else 1.0 + 0.19 * len(cases.each("arm"))
        for _, cases in stretches
    ]

    def draw(figure: Figure) -> None:
        for axes, (name, cases) in zip(_panels(figure, heights), stretches, strict=True):
            if len(cases.each("load")) > 1:
                _lines(axes, cases, palette)
                legend(axes)
            else:
                _bars(axes, cases, palette)
                legend(axes, x=1.1)  # right of the figures
            if len(stretches) > 1:
                axes.set_title(name, loc="left")

    return svg_file("-".join(["goodput", *(name for name, _ in stretches)]), sum(heights), draw)


def ratio_svg(stretches: Sequence[Stretch], palette: Palette) -> str:
    """Goodput of H-MAS over each baseline that ran; empty where a table says it better."""
    drawn = [stretch for stretch in stretches if _has_ratios(stretch[1])]
    heights = [3.0] * len(drawn)

    def draw(figure: Figure) -> None:
        for axes, (name, cases) in zip(_panels(figure, heights), drawn, strict=True):
            _ratios(axes, cases, palette)
            axes.set_title(f"H-MAS, {name}", loc="left")

    name = "-".join(["ratio", *(name for name, _ in drawn)])
    return svg_file(name, sum(heights), draw) if drawn else ""


def words_svg(stretches: Sequence[Stretch], palette: Palette) -> str:
    """Attainment of those that words name, and of the others, scenario by scenario.

    Of the arms that have a controller; empty where nothing was said.
    """
    said = [(name, cases) for name, cases in stretches if cases.has(MET_NAMED)]

    def draw(figure: Figure) -> None:
        (axes,) = _panels(figure, [3.0])
        for arm in (arm for arm in said[0][1].each("arm") if arm in {HMAS, *TOLD}):
            for met, style, whose in ((MET_NAMED, "o-", "named"), (MET_OTHERS, "s:", "others")):
                means = [cases.mean(met, arm) for _, cases in said]
                marks = [(x, value) for x, value in enumerate(means) if value is not None]
                axes.errorbar(
                    [x for x, _ in marks], [value.mean for _, value in marks],
                    [value.mean - value.low for _, value in marks] if marks[0][1].n > 1 else None,
                    fmt=style, ms=4, lw=1.4, capsize=2, color=palette[arm],
                    label=f"{arm}, {whose}",
                )  # fmt: skip
        axes.set_xticks(range(len(said)), [name for name, _ in said])
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("met all targets")
        legend(axes)

    return svg_file("words", 3.4, draw) if len(said) > 1 else ""


def _has_ratios(cases: Summary) -> bool:
    arms = cases.each("arm")
    return HMAS in arms and len(cases.each("load")) > 1 and bool({*BASELINES} & {*arms})


def _panels(figure: Figure, heights: Sequence[float]) -> list[Axes]:
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=list(heights))
    panels: list[Axes] = list(grid[:, 0])
    for axes in panels:
        plain(axes)
    return panels


def _lines(axes: Axes, cases: Summary, palette: Palette) -> None:
    arms = cases.each("arm")
    strong, most = drawn_arms(arms), 0.0
    weak = [arm for arm in arms if arm not in strong]
    for arm in [*weak, *strong]:
        points = _points(cases, "goodput_rps", arm)
        most = max([most, *(_ends(value)[1] for _, value in points)])
        if arm in strong:
            _line(axes, points, palette[arm], arm, strong=arm == HMAS)
        else:
            label = f"{len(weak)} other arms" if arm == weak[0] else None
            axes.plot(*_means(points), color=INK, alpha=0.35, lw=0.6, zorder=1, label=label)
    for figure, style, label in SHARED:
        shared = _points(cases, figure, None)
        if shared:
            axes.plot(*_means(shared), style, color=INK, lw=1.2, label=label)
        if shared and figure == "bound_rps":
            most = max([most, *(value.mean for _, value in shared)])
    axes.set_ylim(0, 1.1 * most or 1.0)
    axes.set_xlabel("offered load, times capacity")
    axes.set_ylabel("goodput (requests/s)")


def _bars(axes: Axes, cases: Summary, palette: Palette) -> None:
    """One load: a horizontal bar per arm, so that names have room however many there are."""
    arms = cases.each("arm")
    for y, arm in enumerate(arms):
        value = cases.mean("goodput_rps", arm)
        if value is None:
            continue
        colour, alpha = (palette[arm], 1.0) if arm in drawn_arms(arms) else (INK, 0.35)
        axes.barh(y, value.mean, 0.75, color=colour, alpha=alpha)
        if value.n > 1:
            axes.plot(_ends(value), [y, y], color=INK, lw=1.2)
        axes.text(
            1.01, y, f"{value.mean:.2f}", transform=axes.get_yaxis_transform(), va="center",
            fontsize=8,
        )  # fmt: skip
    for figure, style, label in SHARED:
        if (shared := cases.mean(figure)) is not None:
            axes.axvline(shared.mean, ls=style, color=INK, lw=1.2, label=label)
    axes.set_yticks(range(len(arms)), arms, fontsize=8)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    axes.set_xlabel(f"goodput (requests/s) at {cases.each('load')[0]:g}x capacity")


def _ratios(axes: Axes, cases: Summary, palette: Palette) -> None:
    seen: list[Interval] = []
    for base in BASELINES:
        points = [
            (load, value)
            for load in sorted(cases.each("load"))
            if (value := cases.only(load=load).ratio(HMAS, base)) is not None
        ]
        if points:
            seen += [value for _, value in points]
            _line(axes, points, palette[base], f"over {base}", strong=False)
    _scale(axes, seen)
    axes.set_ylabel("goodput ratio")
    axes.set_xlabel("offered load, times capacity")
    legend(axes, x=1.1)


def _scale(axes: Axes, seen: Sequence[Interval]) -> None:
    """The paper's range; from 0, or logarithmic where ratios are large."""
    axes.axhline(1.0, color=STOCK_COLOUR, lw=0.8)
    for i, ratio in enumerate(PAPER):
        axes.axhline(ratio, color=INK, lw=0.8, ls=(0, (1, 2)), label=None if i else PAPER_LABEL)
    lows, highs = zip(*map(_ends, seen), strict=True)
    most, least = max(*PAPER, *highs), min(1.0, *lows)
    if most > LOG_ABOVE and least > 0:
        logarithmic(axes, "y", "{x:g}x")
        axes.set_ylim(min(0.8, least / 1.2), most * 1.2)
    else:
        axes.set_ylim(0, 1.08 * most)
        axes.yaxis.set_major_formatter("{x:g}x")


def _line(
    axes: Axes, points: Sequence[tuple[float, Interval]], colour: str, label: str, *, strong: bool
) -> None:
    """Means as a line, intervals as a band."""
    loads, values = [load for load, _ in points], [value for _, value in points]
    axes.plot(
        loads, [value.mean for value in values], "o-", ms=3, color=colour, label=label,
        lw=2.2 if strong else 1.4, zorder=3 if strong else 2,
    )  # fmt: skip
    if any(value.n > 1 for value in values):
        lows, highs = zip(*map(_ends, values), strict=True)
        axes.fill_between(loads, lows, highs, color=colour, alpha=0.18, lw=0)


def _points(cases: Summary, figure: str, arm: str | None) -> list[tuple[float, Interval]]:
    found = [(load, cases.only(load=load).mean(figure, arm)) for load in sorted(cases.each("load"))]
    return [(load, value) for load, value in found if value is not None]


def _means(points: Sequence[tuple[float, Interval]]) -> tuple[list[float], list[float]]:
    return [load for load, _ in points], [value.mean for _, value in points]


def _ends(interval: Interval) -> tuple[float, float]:
    """The ends of an interval as drawn; no figure here is below 0."""
    return max(0.0, interval.low), min(interval.high, MOST_DRAWN * interval.mean)
