"""How is a run shown to people? One HTML file with tables and plots, no network needed.

`write_report` is for one comparison (the live demo), `write_suite_report` for a whole
suite (`hmas eval run --out`); `write_load_figures` writes the two plots that sum it up as
files of their own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from evals.report.ablation import ablation_sheets, ablations
from evals.report.ablation_figure import ablation_figure
from evals.report.case_section import CaseReport, case_section
from evals.report.details import detail_sheets
from evals.report.figures import Palette, colours
from evals.report.load_curves import LoadCurves, load_curves
from evals.report.load_figures import goodput_figure, goodput_file, ratio_figure, ratio_file
from evals.report.sheets import load_sheets
from evals.report.table import LEFT_ALIGNED, columns, rows
from evals.report.whole_suite import suite_sheets
from evals.result.metrics import Result
from evals.result.recording import AppliedDecision
from evals.result.statistics import over_seeds
from serving.contracts import Outcome

MOST_ROWS_OPEN = 100  # a longer table is folded


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
    """Write the page of a suite: what sums it up per scenario, the tables, then every case.

    Args:
        path: of the page; its folder is made.
        title: of the page.
        subtitle: of the page.
        results: of every seed, one each.
        cases: those to draw.
    """
    every, means = load_curves(results), over_seeds(results)
    palette = _palette(every, cases)
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
        notes=_notes(results),
        suite_sheets=suite_sheets(results),
        scenarios=[_scenario(curves, palette) for curves in every],
        ablation_sheets=ablation_sheets(means),
        ablation_figures=[
            (each.scenario, ablation_figure(each))
            for each in ablations(means)
            if each.policies and len(each.loads) > 1
        ],
        columns=columns(means),
        left_aligned=LEFT_ALIGNED,
        rows=rows(means),
        detail_sheets=detail_sheets(means),
        most_rows_open=MOST_ROWS_OPEN,
        cases=[case_section(case, palette) for case in cases],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def write_load_figures(folder: Path, results: Sequence[Result]) -> list[tuple[str, str]]:
    """Write goodput.svg and, where a baseline ran, ratio.svg.

    Args:
        folder: an existing one.
        results: of every seed.

    Returns:
        (title, file name) of what was written.
    """
    every = load_curves(results)
    palette = _palette(every, ())
    written = []
    for title, name, text in (
        ("Goodput over load", "goodput.svg", goodput_file(every, palette)),
        ("Goodput over the baselines", "ratio.svg", ratio_file(every, palette)),
    ):
        path = folder / name
        path.unlink(missing_ok=True)
        if text:
            path.write_text(text, encoding="utf-8")
            written.append((title, name))
    return written


def _palette(every: Sequence[LoadCurves], cases: Sequence[CaseReport]) -> Palette:
    """One colour per arm on the whole page."""
    strong = [arm for curves in every for arm in curves.strong_arms()]
    return colours([*strong, *(arm for case in cases for arm in case.outcomes_by_arm)])


def _scenario(curves: LoadCurves, palette: Palette) -> dict[str, Any]:
    drawn = [
        ("Goodput", goodput_figure(curves, palette)),
        ("Goodput over the baselines", ratio_figure(curves, palette)),
    ]
    return {
        "name": curves.scenario,
        "figures": [(f"{title}, {curves.scenario}", svg) for title, svg in drawn if svg],
        "sheets": load_sheets(curves),
    }


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
