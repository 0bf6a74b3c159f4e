"""Which files does `--out` get? Results as JSON, CSV, Markdown and plots, outcomes, the page.

Called by `evals.eval_run`. Tables are means over seeds; outcomes and the plots of single cases
are of the first seed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from evals.report.case_section import CaseReport
from evals.report.figures import colours, drawn_arms
from evals.report.page import sources_of, write_report
from evals.report.plots import goodput_svg, ratio_svg
from evals.report.sheet import markdown
from evals.report.summary import Summary
from evals.report.tables import case_sheets, summary_sheets
from evals.result.metrics import CaseRun, Result
from evals.result.run_result import SuiteRun, to_json


def write_files(run: SuiteRun, out: Path, description: str) -> None:
    """Write results.json, summary.csv, results.md with its plots, outcomes.jsonl, report.html.

    `run.json` is results.json without the results: what pages of evals/results need beside the
    summary.
    Of more arms than a figure can show there are outcomes of the notable ones only: those of
    all would be hundreds of MB.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(to_json(run) + "\n", encoding="utf-8")
    sources = {"sources": sources_of(run.results)}
    about = to_json(replace(run, results=[]), sources)
    (out / "run.json").write_text(about + "\n", encoding="utf-8")
    write_tables(run.results, out)
    drawn = _drawn(run)
    outcomes = out / "outcomes.jsonl"
    outcomes.unlink(missing_ok=True)
    if drawn:
        _write_outcomes([case for case, _ in drawn], outcomes)
    subtitle = _subtitle(run, description)
    write_report(out / "report.html", f"Eval {run.suite}", subtitle, run.results, _cases(drawn))


def write_tables(results: Sequence[Result], out: Path) -> None:
    """Write what needs no single request: summary.csv, results.md, goodput.svg, ratio.svg."""
    summary = Summary.of(results)
    (out / "summary.csv").write_text(summary.csv(), encoding="utf-8")
    stretches, palette = summary.stretches(), colours(summary.each("arm"))
    figures = []
    for title, name, text in (
        ("Goodput over load", "goodput.svg", goodput_svg(stretches, palette)),
        ("Goodput over the baselines", "ratio.svg", ratio_svg(stretches, palette)),
    ):
        (out / name).unlink(missing_ok=True)
        if text:
            (out / name).write_text(text, encoding="utf-8")
            figures.append(f"![{title}]({name})\n")
    tables = [markdown(sheet) for sheet in (*summary_sheets(summary), *case_sheets(summary))]
    (out / "results.md").write_text("\n".join([*figures, *tables]), encoding="utf-8")


def _drawn(run: SuiteRun) -> list[tuple[CaseRun, Result]]:
    """The runs whose single requests are shown: of the first seed, and of arms that are drawn."""
    arms = drawn_arms(result["arm"] for result in run.results)
    return [
        (case, result)
        for case, result in zip(run.runs, run.results, strict=True)
        if case.outcomes and case.arm in arms and result.get("seed", run.seed) == run.seed
    ]


def _cases(drawn: Sequence[tuple[CaseRun, Result]]) -> list[CaseReport]:
    """One per scenario and load."""
    cases = []
    for scenario, load in dict.fromkeys((case.scenario, case.load) for case, _ in drawn):
        of_case = [pair for pair in drawn if (pair[0].scenario, pair[0].load) == (scenario, load)]
        arms = [case for case, _ in of_case]
        recovery = of_case[0][1].get("stability", {}).get("recovery", ())
        cases.append(CaseReport(
            scenario, load, {case.arm: case.outcomes for case in arms},
            next((case.decisions for case in arms if case.arm == "hmas"), ()),
            [moment["at_s"] for moment in recovery],
        ))  # fmt: skip
    return cases


def _subtitle(run: SuiteRun, description: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    seeds = list(dict.fromkeys(result.get("seed", run.seed) for result in run.results))
    if len(seeds) == 1:
        return f"{description}. Seed {run.seed}; {versions}."
    return (
        f"{description}. Means over seeds {', '.join(map(str, seeds))}; plots of single cases "
        f"are of seed {run.seed}; {versions}."
    )


def _write_outcomes(runs: list[CaseRun], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for case in runs:
            where = {"scenario": case.scenario, "load": case.load, "arm": case.arm}
            for outcome in case.outcomes:
                file.write(json.dumps(where | asdict(outcome)) + "\n")
