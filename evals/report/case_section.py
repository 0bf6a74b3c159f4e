"""What does the page say of one case? How it went arm by arm, and what was decided.

A case is a scenario at a load; all arms served the same requests. Called by `files`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from evals.report.figures import (
    HMAS_COLOUR,
    INK,
    Palette,
    legend,
    logarithmic,
    svg_of_axes,
)
from evals.result.metrics import windowed_attainment
from evals.result.recording import AppliedDecision
from serving.contracts import Limits, Outcome
from serving.contracts.rules import rules_in_force

LATENCIES = {"ttft_s": ("time to first token (s)", 1.0), "tpot_s": ("time per token (ms)", 1e3)}
TARGET_MS = {"ttft_s": "ttft_ms", "tpot_s": "tpot_ms"}
MOST_POINTS = 200  # of one curve
MOST_DECISION_ROWS = 200
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
            start_s = min(outcome.arrival_s for outcome in outcomes)
            points = windowed_attainment(outcomes, start_s, window_s)
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
        targets = {getattr(o.slo, TARGET_MS[which]) for arm in by_arm.values() for o in arm}
        if len(targets) == 1 and (target := targets.pop()) is not None:
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


@dataclass(frozen=True, slots=True)
class CaseReport:
    """One comparison: arms that served the same requests; decisions of the arm `hmas`.

    `moments_s` is when traffic changes, as far as known, in seconds after the first arrival.
    """

    scenario: str
    load: float
    outcomes_by_arm: Mapping[str, Sequence[Outcome]]
    decisions: Sequence[AppliedDecision]
    moments_s: Sequence[float] = ()


def case_section(case: CaseReport, palette: Palette) -> dict[str, Any]:
    """What the page's template needs of a case."""
    start_s, decisions = _start_s(case), case.decisions
    return {
        "title": f"{case.scenario}, {case.load:g} times capacity",
        "figures": _figures(case, palette, start_s),
        "decisions": [
            (f"{d.at_s - start_s:.1f}", d.policy, _limits_text(d.limits), d.reason)
            for d in decisions[:MOST_DECISION_ROWS]
        ],
        "decisions_left_out": max(0, len(decisions) - MOST_DECISION_ROWS),
    }


def switches(decisions: Sequence[AppliedDecision], start_s: float) -> list[tuple[float, str]]:
    """(seconds after the start, policy from then on): the first decision, and each new policy."""
    found: list[tuple[float, str]] = []
    for decision in decisions:
        if not found or decision.policy != found[-1][1]:
            found.append((max(0.0, decision.at_s - start_s), decision.policy))
    return found


def _figures(case: CaseReport, palette: Palette, start_s: float) -> list[tuple[str, str]]:
    by_arm = {arm: outcomes for arm, outcomes in case.outcomes_by_arm.items() if outcomes}
    if not by_arm:
        return []
    where = f"{case.scenario}-{case.load:g}"
    over_time = attainment_over_time_figure(
        f"attainment-{where}", by_arm, palette, window_s=_window_s(by_arm),
        switches=switches(case.decisions, start_s), moments_s=case.moments_s,
    )  # fmt: skip
    return [
        ("Attainment over time", over_time),
        ("Time to first token", latency_figure(f"ttft-{where}", by_arm, "ttft_s", palette)),
        ("Time per output token", latency_figure(f"tpot-{where}", by_arm, "tpot_s", palette)),
    ]


def _limits_text(limits: Limits) -> str:
    parts = [f"budget {limits.token_budget}", f"active {limits.max_active_requests}"]
    if limits.long_prefill_threshold:
        parts.append(f"long prefill {limits.long_prefill_threshold}")
    if rules := rules_in_force(limits):
        parts.append(f"rules {' '.join(rules)}")
    return ", ".join(parts)


def _start_s(case: CaseReport) -> float:
    """Start of the arm `hmas` on its own clock."""
    served = case.outcomes_by_arm.get("hmas", ())
    first_s = case.decisions[0].at_s if case.decisions else 0.0
    return min((outcome.arrival_s for outcome in served), default=first_s)


def _window_s(by_arm: Mapping[str, Sequence[Outcome]]) -> float:
    """30 s, or less where that would leave fewer than six windows."""
    arrivals_s = [outcome.arrival_s for outcomes in by_arm.values() for outcome in outcomes]
    sixth_s = (max(arrivals_s) - min(arrivals_s)) / 6
    return next((width_s for width_s in (30.0, 10.0) if width_s <= sixth_s), 5.0)
