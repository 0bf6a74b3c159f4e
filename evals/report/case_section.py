"""What does the page say of one case? Its plots, and the decisions of H-MAS as a table.

Called by `page`, once per scenario and load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.report.case_figures import attainment_over_time_figure, latency_figure
from evals.report.controller_figure import controller_figure
from evals.report.figures import Palette
from evals.result.recording import AppliedDecision
from serving.contracts import Limits, Outcome
from serving.contracts.rules import rules_in_force

MOST_DECISION_ROWS = 200


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
    where = f"{case.scenario}-{case.load:g}"
    figures = []
    if by_arm:
        over_time = attainment_over_time_figure(
            f"attainment-{where}", by_arm, palette, window_s=_window_s(by_arm),
            switches=switches(case.decisions, start_s), moments_s=case.moments_s,
        )  # fmt: skip
        figures = [
            ("Attainment over time", over_time),
            ("Time to first token", latency_figure(f"ttft-{where}", by_arm, "ttft_s", palette)),
            ("Time per output token", latency_figure(f"tpot-{where}", by_arm, "tpot_s", palette)),
        ]  # fmt: skip
    if case.decisions:
        end_s = max([o.finished_s for o in by_arm.get("hmas", ())] + [case.decisions[-1].at_s])
        drawn = controller_figure(
            f"controller-{where}", case.decisions, start_s, end_s, case.moments_s
        )
        figures.append(("What the controller did", drawn))
    return figures


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
