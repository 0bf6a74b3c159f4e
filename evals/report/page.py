"""How is a run shown to people? One HTML file with tables and plots, no network needed."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from evals.report.case_section import CaseReport, case_section
from evals.report.figures import Palette, colours
from evals.report.plots import goodput_figure, goodput_file, ratio_figure, ratio_file
from evals.report.summary import Summary
from evals.report.tables import case_sheets, details, over_loads, whole_suite
from evals.result.metrics import Result

MOST_ROWS_OPEN = 100  # a longer table is folded


def write_report(
    path: Path, title: str, subtitle: str, results: Sequence[Result], cases: Sequence[CaseReport]
) -> None:
    """Write the page of a run: what sums it up per scenario, the tables, then single cases.

    Args:
        path: of the page; its folder is made.
        title: of the page.
        subtitle: of the page.
        results: of every seed, one each.
        cases: those to draw.
    """
    summary = Summary.of(results)
    palette = _palette(summary, cases)
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
        notes=sources_of(results),
        suite_sheets=whole_suite(summary),
        scenarios=[
            {
                "figures": _figures(name, of_one, palette),
                "sheets": [*over_loads(name, of_one), *details(name, of_one)],
            }
            for name, of_one in summary.stretches()
        ],
        case_sheets=case_sheets(summary),
        most_rows_open=MOST_ROWS_OPEN,
        cases=[case_section(case, palette) for case in cases],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def write_load_figures(folder: Path, results: Sequence[Result]) -> list[tuple[str, str]]:
    """Write goodput.svg and, where a baseline ran at several loads, ratio.svg.

    Args:
        folder: an existing one.
        results: of every seed.

    Returns:
        (title, file name) of what was written.
    """
    summary = Summary.of(results)
    stretches, palette = summary.stretches(), _palette(summary, ())
    written = []
    for title, name, text in (
        ("Goodput over load", "goodput.svg", goodput_file(stretches, palette)),
        ("Goodput over the baselines", "ratio.svg", ratio_file(stretches, palette)),
    ):
        path = folder / name
        path.unlink(missing_ok=True)
        if text:
            path.write_text(text, encoding="utf-8")
            written.append((title, name))
    return written


def _figures(name: str, cases: Summary, palette: Palette) -> list[tuple[str, str]]:
    drawn = [
        ("Goodput", goodput_figure((name, cases), palette)),
        ("Goodput of H-MAS over the baselines", ratio_figure((name, cases), palette)),
    ]
    return [(f"{title}, {name}", svg) for title, svg in drawn if svg]


def _palette(summary: Summary, cases: Sequence[CaseReport]) -> Palette:
    """One colour per arm on the whole page."""
    return colours([*summary.each("arm"), *(arm for case in cases for arm in case.outcomes_by_arm)])


def sources_of(results: Sequence[Result]) -> list[str]:
    """Where the figures come from, each said once: traces of the first seed, and machines."""
    first = [result for result in results if result.get("seed") == results[0].get("seed")]
    return list(
        dict.fromkeys(
            f"{result['scenario']}: {key}: {result[key]}"
            for result in first
            for key in ("trace", "engine")
            if key in result
        )
    )
