"""What do the plots show? Each function draws one figure and returns it as inline SVG.

Text and axes take the page's text colour, so the same page is readable in dark and
light. Deterministic: no dates, fixed ids.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from evals.metrics import Result, attainment_by, windowed_attainment
from evals.recording import AppliedDecision
from serving.contracts import Outcome

INK = "#767577"  # replaced by `currentColor` in the SVG
STOCK, HMAS = "#8a8a8a", "#e0457b"
# Okabe and Ito's colours, readable with colour blindness and on dark and light grounds.
OTHERS = ("#0091d5", "#e69f00", "#009e73", "#d55e00", "#9c7be0", "#56b4e9", "#b3a300")

LATENCIES = {"ttft_s": ("time to first token (s)", 1), "tpot_s": ("time per token (ms)", 1000)}

OutcomesByArm = Mapping[str, Sequence[Outcome]]

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


def colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour for each arm: grey for stock, a strong one for H-MAS."""
    rest = [arm for arm in arms if arm not in ("vllm-fcfs", "hmas")]
    chosen = {arm: OTHERS[i % len(OTHERS)] for i, arm in enumerate(rest)}
    return {"vllm-fcfs": STOCK, "hmas": HMAS} | chosen


def goodput_figure(results: Sequence[Result]) -> str:
    """Bars of goodput per load, one colour per arm; the line above is the offered rate."""
    loads = sorted({result["load"] for result in results})
    arms = list(dict.fromkeys(result["arm"] for result in results))
    palette = colours(arms)
    width = 0.8 / len(arms)

    def draw(axes: Axes) -> None:
        for i, arm in enumerate(arms):
            points = [(loads.index(r["load"]), r) for r in results if r["arm"] == arm]
            bars = axes.bar(
                [x + (i - (len(arms) - 1) / 2) * width for x, _ in points],
                [r["goodput_rps"] for _, r in points],
                width * 0.92,
                label=arm,
                color=palette[arm],
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=7, color=INK, padding=1)
        for x, load in enumerate(loads):
            offered = next(r["offered_rps"] for r in results if r["load"] == load)
            label = "offered" if x == 0 else None
            axes.plot([x - 0.45, x + 0.45], [offered] * 2, "--", color=INK, lw=1, label=label)
        axes.set_xticks(range(len(loads)), [f"{load:g}x capacity" for load in loads])
        axes.set_ylabel("goodput (requests/s)")
        _legend(axes)

    return _svg("goodput", 3.2, draw)


def attainment_over_time_figure(by_arm: OutcomesByArm, window_s: float = 30.0) -> str:
    """Attainment of the requests that arrived in each window, per arm."""
    palette = colours(list(by_arm))

    def draw(axes: Axes) -> None:
        for arm, outcomes in by_arm.items():
            points = windowed_attainment(outcomes, _start(outcomes), window_s)
            axes.plot(*zip(*points, strict=True), ".-", label=arm, color=palette[arm], lw=1.5)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(f"arrival time (s), windows of {window_s:g} s")
        axes.set_ylabel("SLO attainment")
        _legend(axes)

    return _svg("attainment", 3.0, draw)


def latency_figure(by_arm: OutcomesByArm, which: str) -> str:
    """Cumulative distribution of `ttft_s` or `tpot_s` per arm, over all offered requests.

    A curve ends below 1 where requests never got that far.
    """
    palette = colours(list(by_arm))
    label, unit = LATENCIES[which]

    def draw(axes: Axes) -> None:
        for arm, outcomes in by_arm.items():
            values = sorted(v * unit for o in outcomes if (v := getattr(o, which)) is not None)
            share = np.arange(1, len(values) + 1) / len(outcomes)
            axes.step(values, share, where="post", label=arm, color=palette[arm], lw=1.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(label)
        axes.set_ylabel("share of offered requests")
        _legend(axes)

    return _svg(which, 3.0, draw)


def attainment_by_figure(by_arm: OutcomesByArm, which: str) -> str:
    """Bars of attainment per `tenant` or `slo_class`, one colour per arm."""
    key: Callable[[Outcome], str] = lambda outcome: str(getattr(outcome, which))  # noqa: E731
    palette = colours(list(by_arm))
    shares = {arm: attainment_by(outcomes, key) for arm, outcomes in by_arm.items()}
    groups = sorted({group for share in shares.values() for group in share})
    width = 0.8 / len(shares)

    def draw(axes: Axes) -> None:
        for i, (arm, share) in enumerate(shares.items()):
            positions = [x + (i - (len(shares) - 1) / 2) * width for x in range(len(groups))]
            heights = [share.get(group, 0.0) for group in groups]
            axes.bar(positions, heights, width * 0.92, label=arm, color=palette[arm])
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("SLO attainment")
        _legend(axes)

    return _svg(which, 2.8, draw)


def decisions_figure(decisions: Sequence[AppliedDecision], start_s: float, end_s: float) -> str:
    """Timeline: the policy in force, and the limits as fractions of their largest value."""
    policies = sorted({decision.policy for decision in decisions})
    times = [decision.at_s - start_s for decision in decisions] + [end_s - start_s]

    def draw(axes: Axes) -> None:
        for decision, from_s, to_s in zip(decisions, times, times[1:], strict=False):
            y = policies.index(decision.policy)
            axes.barh(y, max(0.0, to_s - from_s), left=from_s, height=0.5, color=HMAS, alpha=0.75)
        axes.set_yticks(range(len(policies)), policies)
        axes.set_ylim(-0.6, len(policies) + 1.4)
        axes.set_xlabel("time (s)")
        for i, limit in enumerate(("token_budget", "max_active_requests")):
            values = [getattr(decision.limits, limit) for decision in decisions]
            most = max(values)
            heights = [len(policies) - 0.3 + 1.3 * value / most for value in values]
            axes.step(
                times,
                [*heights, heights[-1]],
                where="post",
                color=OTHERS[i],
                lw=1.4,
                label=f"{limit} (top: {most})",
            )
        _legend(axes)

    return _svg("decisions", 1.6 + 0.35 * len(policies), draw)


def svg(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    """What `draw` puts on a figure of `height` inches, as inline SVG.

    Ids are hashed with `name`, so that two figures on a page never share one.
    """
    with style.context({**STYLE, "svg.hashsalt": f"hmas-{name}"}):
        figure = Figure(figsize=(7.6, height), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)


def _svg(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    def on_one_pair_of_axes(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        draw(axes)

    return svg(name, height, on_one_pair_of_axes)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.3)


def _start(outcomes: Sequence[Outcome]) -> float:
    return min(outcome.arrival_s for outcome in outcomes)
