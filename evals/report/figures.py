"""What do all plots share? Colours, style, and the way to SVG.

On the page, text and axes take the page's text colour; in a file of its own they stay a grey
that is readable on dark and light grounds. Deterministic: no dates, fixed ids. Called by the
files of this folder that draw.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

INK = "#767577"  # replaced by `currentColor` in SVG on the page
STOCK_COLOUR, HMAS_COLOUR = "#8a8a8a", "#e0457b"
# Okabe and Ito's colours and a brown, readable with colour blindness and on dark and light grounds.
OTHERS = (
    "#0091d5", "#e69f00", "#009e73", "#d55e00", "#9c7be0", "#56b4e9", "#b3a300", "#a67c52",
)  # fmt: skip
OWN = {
    "vllm-fcfs": STOCK_COLOUR,
    "hmas": HMAS_COLOUR,
    "sglang": "#0091d5",  # live, where there is no emulation
    "sglang-emulated": "#0091d5",
    "sglang-mixed": "#56b4e9",
    "vllm-tuned": "#b3a300",
    "vllm-priority-deadline": "#d55e00",
    "rules-only": "#9c7be0",
    "clairvoyant": "#009e73",
}

Palette = Mapping[str, str]  # colour by arm

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_WIDTH = 7.6  # inches


def drawn_arms(arms: Iterable[str]) -> tuple[str, ...]:
    """The arms that are drawn strongly, and whose single requests are kept: all if they are few."""
    names = tuple(dict.fromkeys(arms))
    return names if len(names) <= len(OTHERS) else tuple(name for name in names if name in OWN)


def colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour for each arm: its own where it has one, else one that is left."""
    chosen = {arm: OWN[arm] for arm in arms if arm in OWN}
    left = [colour for colour in OTHERS if colour not in chosen.values()] or list(OTHERS)
    rest = [arm for arm in dict.fromkeys(arms) if arm not in OWN]
    return chosen | {arm: left[i % len(left)] for i, arm in enumerate(rest)}


def svg_file(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    """What `draw` puts on a figure of `height` inches, as the text of an SVG file.

    Ids are hashed with `name`, so that two figures on a page never share one.
    """
    with style.context({**STYLE, "svg.hashsalt": f"hmas-{name}"}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def inline(text: str) -> str:
    """An SVG file as a part of the page, in the page's colours and as wide as there is room."""
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)


def svg_of_axes(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    """Inline SVG of one pair of axes with a grid of horizontal lines."""

    def on_one_pair(figure: Figure) -> None:
        axes = figure.add_subplot()
        plain(axes)
        draw(axes)

    return inline(svg_file(name, height, on_one_pair))


def plain(axes: Axes) -> None:
    """See-through axes with horizontal lines behind what is drawn."""
    axes.patch.set_alpha(0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def legend(axes: Axes, x: float = 1.0) -> None:
    """To the right of the axes, where it hides nothing; `x` in widths of the axes."""
    axes.legend(loc="upper left", bbox_to_anchor=(x, 1.0), borderaxespad=0.3)


def logarithmic(axes: Axes, which: str, form: str = "{x:g}") -> None:
    """A logarithmic `x` or `y` axis with ticks at 1, 2 and 5, as plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(form)
    axis.set_minor_locator(NullLocator())
