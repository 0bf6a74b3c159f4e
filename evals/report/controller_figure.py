"""What did the controller do over time? Policy, limits and rules as steps on one time axis.

Called by `case_section` for the arm `hmas`.
"""

from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evals.report.figures import HMAS_COLOUR, INK, OTHERS, inline, svg_file
from evals.result.recording import AppliedDecision
from serving.contracts import Limits
from serving.contracts.rules import RULES, rules_in_force

LIMITS = {"token_budget": "token budget", "max_active_requests": "active requests"}
LONG_PREFILL = "long prefill"  # no rule, but it acts like one


def controller_figure(
    name: str,
    decisions: Sequence[AppliedDecision],
    start_s: float,
    end_s: float,
    moments_s: Sequence[float] = (),
) -> str:
    """The policy in force, the limits, and which rules act, as inline SVG.

    Decisions are accepted ones, in order, at least one; the last holds until `end_s`. These times
    are on the engine's clock, on which the axis begins at `start_s`; `moments_s` are on the axis.
    """
    times = [each.at_s - start_s for each in decisions] + [end_s - start_s]
    policies = list(dict.fromkeys(each.policy for each in decisions))
    on = [_acting(each.limits) for each in decisions]
    acting = [rule for rule in (*RULES, LONG_PREFILL) if any(rule in each for each in on)]
    heights = [0.2 + 0.24 * len(policies), 0.85, 0.85]
    if acting:
        heights.append(0.2 + 0.24 * len(acting))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        panels: list[Axes] = list(grid[:, 0])
        for axes in panels:
            axes.patch.set_alpha(0)
            for moment_s in moments_s:
                axes.axvline(moment_s, ls=(0, (5, 4)), color=INK, lw=1.0)
        spans = {
            policy: _spans([d.policy == policy for d in decisions], times) for policy in policies
        }
        _strips(panels[0], spans, HMAS_COLOUR)
        panels[0].set_ylabel("policy")
        for i, (limit, label) in enumerate(LIMITS.items()):
            _steps(panels[1 + i], [getattr(d.limits, limit) for d in decisions], times, OTHERS[i])
            panels[1 + i].set_ylabel(label.replace(" ", "\n"))
        if acting:
            spans = {rule: _spans([rule in each for each in on], times) for rule in acting}
            _strips(panels[3], spans, OTHERS[2])
            panels[3].set_ylabel("rules")
        panels[-1].set_xlim(min(0.0, times[0]), max(times[-1], times[0] + 1.0))
        panels[-1].set_xlabel("time (s); dashed: traffic changes" if moments_s else "time (s)")
        figure.align_ylabels(panels)

    return inline(svg_file(name, 0.7 + sum(heights), draw))


def _acting(limits: Limits) -> list[str]:
    return rules_in_force(limits) + [LONG_PREFILL] * (limits.long_prefill_threshold > 0)


def _spans(holds: Sequence[bool], times: Sequence[float]) -> list[tuple[float, float]]:
    """(start, length) of the stretches in which something holds, neighbours joined."""
    spans: list[tuple[float, float]] = []
    i = 0
    for held, group in groupby(holds):
        until = i + len(list(group))
        if held:
            spans.append((times[i], max(0.0, times[until] - times[i])))
        i = until
    return spans


def _strips(axes: Axes, spans: dict[str, list[tuple[float, float]]], colour: str) -> None:
    for y, stretches in enumerate(spans.values()):
        axes.broken_barh(stretches, (y - 0.32, 0.64), color=colour, alpha=0.8, lw=0)
    axes.set_yticks(range(len(spans)), list(spans), fontsize=8)
    axes.set_ylim(len(spans) - 0.4, -0.6)


def _steps(axes: Axes, values: Sequence[int], times: Sequence[float], colour: str) -> None:
    axes.step(times, [*values, values[-1]], where="post", color=colour, lw=1.6)
    axes.set_yticks([0, max(values)] if max(values) else [0])
    axes.set_ylim(0, 1.15 * max(values) or 1.0)
    axes.grid(axis="y")
