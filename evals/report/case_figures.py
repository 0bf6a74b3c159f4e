"""How did one case go, arm by arm? Attainment over time, and latencies, as SVG.

A case is a scenario at a load; all arms served the same requests. Called by `case_section`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from evals.report.figures import HMAS_COLOUR, INK, Palette, legend, logarithmic, svg_of_axes
from evals.result.metrics import windowed_attainment
from serving.contracts import Outcome

LATENCIES = {"ttft_s": ("time to first token (s)", 1.0), "tpot_s": ("time per token (ms)", 1e3)}
TARGET_MS = {"ttft_s": "ttft_ms", "tpot_s": "tpot_ms"}
MOST_POINTS = 200  # of one curve
LABEL_ROOM = 0.025  # of the width: nearer to each other, names of policies overlap

OutcomesByArm = Mapping[str, Sequence[Outcome]]


def attainment_over_time_figure(
    name: str,
    by_arm: OutcomesByArm,
    palette: Palette,
    *,
    window_s: float = 30.0,
    switches: Sequence[tuple[float, str]] = (),
    moments_s: Sequence[float] = (),
) -> str:
    """Attainment of the requests that arrived in each window, per arm.

    Times are seconds after the first arrival: `moments_s` of changes of traffic, and those of
    `switches`, the policies of the arm `hmas` from then on, the start first.
    """

    def draw(axes: Axes) -> None:
        end_s = 0.0
        for arm, outcomes in by_arm.items():
            points = windowed_attainment(outcomes, _start(outcomes), window_s)
            width = 2.0 if arm == "hmas" else 1.2
            axes.plot(*zip(*points, strict=True), ".-", label=arm, color=palette[arm], lw=width)
            end_s = max(end_s, points[-1][0] + window_s / 2)
        for i, moment_s in enumerate(moments_s):
            label = "traffic changes" if i == 0 else None
            axes.axvline(moment_s, ls=(0, (5, 4)), color=INK, lw=1.0, label=label)
        _mark_switches(axes, switches, end_s)
        axes.set_xlim(-0.01 * end_s, end_s * 1.01)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(f"arrival time (s), windows of {window_s:g} s")
        axes.set_ylabel("SLO attainment")
        legend(axes)

    return svg_of_axes(name, 3.3 if switches else 3.0, draw)


def latency_figure(name: str, by_arm: OutcomesByArm, which: str, palette: Palette) -> str:
    """Cumulative distribution of `ttft_s` or `tpot_s` per arm, over all offered requests.

    A curve ends below 1 where requests never got that far. The target is marked where all
    requests have the same.
    """
    label, unit = LATENCIES[which]

    def draw(axes: Axes) -> None:
        for arm, outcomes in by_arm.items():
            values = np.sort([v * unit for o in outcomes if (v := getattr(o, which)) is not None])
            points = min(MOST_POINTS, len(values))
            shown = np.linspace(0, len(values) - 1, points).round().astype(int)
            share = (shown + 1) / len(outcomes)
            axes.step(values[shown], share, where="post", label=arm, color=palette[arm], lw=1.5)
        target = _common_target_ms(by_arm, TARGET_MS[which])
        if target is not None:
            axes.axvline(target * unit / 1e3, ls="--", color=INK, lw=1.0, label="SLO target")
        logarithmic(axes, "x")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(label)
        axes.set_ylabel("share of offered requests")
        legend(axes)

    return svg_of_axes(name, 3.0, draw)


def _mark_switches(axes: Axes, switches: Sequence[tuple[float, str]], end_s: float) -> None:
    """A line per switch and, above the axes, the policy from there on, as far as there is room."""
    last_label_s = float("-inf")
    for i, (at_s, policy) in enumerate(switches):
        if i:
            label = "hmas switches" if i == 1 else None
            axes.axvline(at_s, color=HMAS_COLOUR, lw=0.8, alpha=0.7, label=label)
        if at_s - last_label_s >= LABEL_ROOM * end_s:
            axes.text(
                at_s, 1.02, policy, transform=axes.get_xaxis_transform(), fontsize=8,
                color=HMAS_COLOUR, rotation=50, rotation_mode="anchor", ha="left", va="bottom",
            )  # fmt: skip
            last_label_s = at_s


def _common_target_ms(by_arm: OutcomesByArm, target: str) -> float | None:
    targets = {getattr(o.slo, target) for outcomes in by_arm.values() for o in outcomes}
    return targets.pop() if len(targets) == 1 else None


def _start(outcomes: Sequence[Outcome]) -> float:
    return min(outcome.arrival_s for outcome in outcomes)
