"""How is a run shown to people? One HTML file with tables and plots, no network needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from evals.report.case_section import CaseReport, case_section
from evals.report.figures import Palette, colours, inline
from evals.report.plots import goodput_svg, ratio_svg
from evals.report.summary import Summary
from evals.report.tables import case_sheets, details, over_loads, whole_suite
from evals.result.metrics import Result

MOST_ROWS_OPEN = 100  # a longer table is folded


def rendered(template: str, **said: Any) -> str:
    """A template of this folder; in HTML, what is said is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(said)


def write_report(
    path: Path, title: str, subtitle: str, results: Sequence[Result], cases: Sequence[CaseReport]
) -> None:
    """Write the page of a run: what sums it up per scenario, the tables, then single cases.

    Results are of every seed; `cases` are those to draw, of arms that have results.
    """
    summary = Summary.of(results)
    palette = colours(summary.each("arm"))
    html = rendered(
        "page.html.j2",
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


def _figures(name: str, cases: Summary, palette: Palette) -> list[tuple[str, str]]:
    drawn = [
        ("Goodput", goodput_svg([(name, cases)], palette)),
        ("Goodput of H-MAS over the baselines", ratio_svg([(name, cases)], palette)),
    ]
    return [(f"{title}, {name}", inline(text)) for title, text in drawn if text]


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
