"""How is a run shown to people? One HTML file with tables and plots, no network needed.

`write_report` is for one comparison (the live demo), `write_suite_report` for a whole
suite (`hmas eval run --out`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from evals.metrics import Result, windowed_attainment
from evals.recording import AppliedDecision
from evals.report.ablation import ablation_sheets, ablations
from evals.report.ablation_figure import ablation_figure
from evals.report.details import detail_sheets
from evals.report.figures import (
    attainment_by_figure,
    attainment_over_time_figure,
    decisions_figure,
    goodput_figure,
    latency_figure,
)
from evals.report.table import COLUMNS, LEFT_ALIGNED, rows
from serving.contracts import Limits, Outcome

MOST_DECISION_ROWS = 200
MOST_ARMS_DRAWN = 12  # with more, bars and curves of all arms in one figure cannot be told apart


@dataclass(frozen=True, slots=True)
class CaseReport:
    """One comparison: arms that served the same requests; decisions of the arm `hmas`."""

    scenario: str
    load: float
    outcomes_by_arm: Mapping[str, Sequence[Outcome]]
    decisions: Sequence[AppliedDecision]


def write_report(
    path: Path,
    title: str,
    subtitle: str,
    results: Sequence[Result],
    outcomes_by_arm: Mapping[str, Sequence[Outcome]],
    *,
    decisions: Sequence[AppliedDecision],
) -> None:
    """Write the page of one comparison; the results are of one scenario and load."""
    case = CaseReport(results[0]["scenario"], results[0]["load"], outcomes_by_arm, decisions)
    write_suite_report(path, title, subtitle, results, [case])


def write_suite_report(
    path: Path, title: str, subtitle: str, results: Sequence[Result], cases: Sequence[CaseReport]
) -> None:
    """Write the page of a suite: what rules add, the table, goodput per scenario, every case."""
    scenarios = list(dict.fromkeys(result["scenario"] for result in results))
    drawn = len({result["arm"] for result in results}) <= MOST_ARMS_DRAWN
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(
        title=title,
        subtitle=subtitle,
        columns=COLUMNS,
        left_aligned=LEFT_ALIGNED,
        rows=rows(results),
        notes=_notes(results),
        ablation_sheets=ablation_sheets(results),
        ablation_figures=[
            (each.scenario, ablation_figure(each))
            for each in ablations(results)
            if each.policies and len(each.loads) > 1
        ],
        detail_sheets=detail_sheets(results),
        goodput=[
            (name, goodput_figure([r for r in results if r["scenario"] == name]))
            for name in scenarios
            if drawn
        ],
        cases=[_case(case) for case in cases if drawn],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _notes(results: Sequence[Result]) -> list[str]:
    """Where the figures come from, each said once."""
    return list(
        dict.fromkeys(
            f"{result['scenario']}: {key}: {result[key]}"
            for result in results
            for key in ("trace", "engine")
            if key in result
        )
    )


def _case(case: CaseReport) -> dict[str, Any]:
    by_arm = {arm: outcomes for arm, outcomes in case.outcomes_by_arm.items() if outcomes}
    start_s, decisions = _timeline(case)
    figures = [
        ("Attainment over time", attainment_over_time_figure(by_arm, _window_s(by_arm))),
        ("Attainment per tenant", attainment_by_figure(by_arm, "tenant")),
        ("Attainment per SLO class", attainment_by_figure(by_arm, "slo_class")),
        ("Time to first token", latency_figure(by_arm, "ttft_s")),
        ("Time per output token", latency_figure(by_arm, "tpot_s")),
    ]
    if decisions:
        end_s = max(
            [o.finished_s for o in by_arm.get("hmas", ())] + [decisions[-1].at_s], default=start_s
        )
        figures.append(("Decisions of H-MAS", decisions_figure(decisions, start_s, end_s)))
    return {
        "title": f"{case.scenario}, {case.load:g} times capacity",
        "figures": figures,
        "decisions": [
            (
                f"{decision.at_s - start_s:.1f}",
                decision.policy,
                _limits_text(decision.limits),
                decision.reason,
            )
            for decision in decisions[:MOST_DECISION_ROWS]
        ],
        "decisions_left_out": max(0, len(decisions) - MOST_DECISION_ROWS),
    }


def _limits_text(limits: Limits) -> str:
    parts = [f"budget {limits.token_budget}", f"active {limits.max_active_requests}"]
    if limits.follow_slack:
        parts.append("budget follows slack")
    if limits.long_prefill_threshold:
        parts.append(f"long prefill {limits.long_prefill_threshold}")
    if limits.kv_reserve:
        parts.append(f"KV reserve {limits.kv_reserve:.0%}")
    return ", ".join(parts)


def _timeline(case: CaseReport) -> tuple[float, Sequence[AppliedDecision]]:
    """Start of the arm `hmas` on its own clock, and its decisions."""
    served = case.outcomes_by_arm.get("hmas", ())
    start_s = min((outcome.arrival_s for outcome in served), default=None)
    if start_s is None:
        start_s = case.decisions[0].at_s if case.decisions else 0.0
    return start_s, case.decisions


def _window_s(by_arm: Mapping[str, Sequence[Outcome]]) -> float:
    """30 s, or less where that would leave fewer than six windows."""
    for width_s in (30.0, 10.0, 5.0):
        for outcomes in by_arm.values():
            start_s = min(outcome.arrival_s for outcome in outcomes)
            if len(windowed_attainment(outcomes, start_s, width_s)) >= 6:
                return width_s
    return 5.0
