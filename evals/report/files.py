"""Which files does `--out` get? Results as JSON, CSV, Markdown and plots, outcomes, the page.

The page is one HTML file with tables and plots, no network needed. Tables are means over seeds;
outcomes and the plots of single cases are of the first seed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jinja2

from evals.report.case_section import CaseReport, case_section
from evals.report.figures import colours, drawn_arms, inline
from evals.report.plots import goodput_svg, ratio_svg, words_svg
from evals.report.sheet import markdown
from evals.report.summary import Summary
from evals.report.tables import case_sheets, details, over_loads, summary_sheets, whole_suite
from evals.result.metrics import CaseRun, Result
from evals.result.run_result import SuiteRun, to_json

MOST_ROWS_OPEN = 100  # a longer table is folded


def write_files(run: SuiteRun, out: Path, description: str) -> None:
    """Write results.json, summary.csv, results.md with its plots, outcomes.jsonl, report.html.

    `run.json` is results.json without the results: what pages of evals/results need beside the
    summary.
    Of more arms than a figure can show there are outcomes of the notable ones only: those of
    all would be hundreds of MB.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(to_json(run) + "\n", encoding="utf-8")
    about = to_json(replace(run, results=[]), {"sources": sources_of(run.results)})
    (out / "run.json").write_text(about + "\n", encoding="utf-8")
    write_tables(run.results, out)
    arms = drawn_arms(result["arm"] for result in run.results)
    drawn = [
        (case, result)
        for case, result in zip(run.runs, run.results, strict=True)
        if case.outcomes and case.arm in arms and result.get("seed", run.seed) == run.seed
    ]
    outcomes = out / "outcomes.jsonl"
    outcomes.unlink(missing_ok=True)
    if drawn:
        _write_outcomes([case for case, _ in drawn], outcomes)
    page = report_page(f"Eval {run.suite}", _subtitle(run, description), run.results, _cases(drawn))
    (out / "report.html").write_text(page, encoding="utf-8")


def write_tables(results: Sequence[Result], out: Path) -> None:
    """Write what needs no single request: summary.csv, results.md and plots."""
    summary = Summary.of(results)
    (out / "summary.csv").write_text(summary.csv(), encoding="utf-8")
    stretches, palette = summary.stretches(), colours(summary.each("arm"))
    figures = []
    for title, name, text in (
        ("Goodput over load", "goodput.svg", goodput_svg(stretches, palette)),
        ("Goodput over the baselines", "ratio.svg", ratio_svg(stretches, palette)),
        ("What words do", "words.svg", words_svg(stretches, palette)),
    ):
        (out / name).unlink(missing_ok=True)
        if text:
            (out / name).write_text(text, encoding="utf-8")
            figures.append(f"![{title}]({name})\n")
    tables = [markdown(sheet) for sheet in (*summary_sheets(summary), *case_sheets(summary))]
    (out / "results.md").write_text("\n".join([*figures, *tables]), encoding="utf-8")


def report_page(
    title: str, subtitle: str, results: Sequence[Result], cases: Sequence[CaseReport]
) -> str:
    """The page of a run: what sums it up per scenario, the tables, then single cases.

    Results are of every seed; `cases` are those to draw, of arms that have results.
    """
    summary = Summary.of(results)
    palette = colours(summary.each("arm"))
    scenarios = []
    for name, of_one in summary.stretches():
        drawn = [
            (f"Goodput, {name}", goodput_svg([(name, of_one)], palette)),
            (f"Goodput of H-MAS over the baselines, {name}", ratio_svg([(name, of_one)], palette)),
        ]
        scenarios.append({
            "figures": [(what, inline(text)) for what, text in drawn if text],
            "sheets": [*over_loads(name, of_one), *details(name, of_one)],
        })  # fmt: skip
    return rendered(
        "page.html.j2", title=title, subtitle=subtitle, notes=sources_of(results),
        suite_sheets=whole_suite(summary), scenarios=scenarios, case_sheets=case_sheets(summary),
        most_rows_open=MOST_ROWS_OPEN, cases=[case_section(case, palette) for case in cases],
    )  # fmt: skip


def rendered(template: str, **said: Any) -> str:
    """A template of this folder; in HTML, what is said is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(said)


def sources_of(results: Sequence[Result]) -> list[str]:
    """Where the figures come from, each said once: traces of the first seed, and machines."""
    return list(dict.fromkeys(
        f"{result['scenario']}: {key}: {result[key]}"
        for result in results
        for key in ("trace", "engine")
        if result.get("seed") == results[0].get("seed") and key in result
    ))  # fmt: skip


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
