"""Which files does `--out` get? Results as JSON and Markdown, outcomes, the HTML page.

Called by `evals.eval_run`. Tables are means over seeds; outcomes and the plots of single cases
are of the first seed.
"""

import dataclasses
import json
from pathlib import Path

from evals.metrics import CaseRun
from evals.run_result import SuiteRun, to_json
from evals.statistics import over_seeds


def write_files(run: SuiteRun, out: Path, description: str) -> None:
    """Write results.json, results.md, outcomes.jsonl and report.html into a folder.

    Of more arms than a figure can show there are no outcomes: they would be hundreds of MB.
    """
    from evals.report import MOST_ARMS_DRAWN, CaseReport, markdown_report, write_suite_report

    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(to_json(run) + "\n", encoding="utf-8")
    means = over_seeds(run.results)
    (out / "results.md").write_text(markdown_report(means), encoding="utf-8")
    drawn = [
        case
        for case, result in zip(run.runs, run.results, strict=True)
        if case.outcomes and result.get("seed", run.seed) == run.seed
    ]
    outcomes = out / "outcomes.jsonl"
    outcomes.unlink(missing_ok=True)
    if len({result["arm"] for result in run.results}) > MOST_ARMS_DRAWN:
        drawn = []
    if drawn:
        _write_outcomes(drawn, outcomes)
    cases = []
    for scenario, load in dict.fromkeys((case.scenario, case.load) for case in drawn):
        arms = [c for c in drawn if (c.scenario, c.load) == (scenario, load)]
        decisions = next((c.decisions for c in arms if c.arm == "hmas"), ())
        cases.append(CaseReport(scenario, load, {c.arm: c.outcomes for c in arms}, decisions))
    write_suite_report(
        out / "report.html", f"Eval {run.suite}", _subtitle(run, description), means, cases
    )


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
                file.write(json.dumps(where | dataclasses.asdict(outcome)) + "\n")
