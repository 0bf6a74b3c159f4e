"""How are the scores of the policy agent shown? A table, JSON, Markdown, and a plot."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evals.agent.eval_agent import SPLITS, AgentReport
from evals.agent.scoring import Score, balance
from evals.report.figures import HMAS_COLOUR, STOCK_COLOUR, svg_file
from evals.report.sheet import Sheet, markdown
from evals.result.metrics import rounded

COLUMNS = ("contender", "regret", "95% interval", "right")
OF_MODELS = ("usable", "steady", "first", "latency", "tokens")
NOTE = (
    "Regret: attainment lost against the best label, mean over scenarios, with an interval over "
    "scenarios. The best of several noisy labels is a little too high, for every row alike. "
    "Right: choices that the labels cannot tell from the best."
)
NOTE_ON_MODELS = (
    " Usable: replies. Steady: cases with one answer in every order of the options. First: "
    "replies that name the option listed first (of how many)."
)


def document(report: AgentReport, cases_file: Path) -> dict[str, Any]:
    """The object of `--json`."""
    return {
        "cases": str(cases_file),
        "labels_best": balance(report.cases),
        "scores": [rounded(asdict(each)) for each in report.scores],
    }


def sheets(report: AgentReport) -> list[Sheet]:
    """One table per split, lowest regret first."""
    tables = []
    for split in SPLITS:
        scores = report.of(split)
        if scores:
            title = f"{split.replace('_', ' ')}: {scores[0].cases} cases of "
            title += f"{scores[0].scenarios} scenarios"
            best = balance(report.cases)[split]
            counted = ", ".join(f"{name} {number}" for name, number in best.items())
            models = any(each.validity is not None for each in scores)
            columns = COLUMNS + OF_MODELS if models else COLUMNS
            rows = [_row(each)[: len(columns)] for each in scores]
            note = NOTE + (NOTE_ON_MODELS if models else "")
            tables.append(Sheet(title, columns, rows, f"{note} Best label: {counted}."))
    return tables


def figure(report: AgentReport) -> str:
    """Regret of each contender with its interval, a panel per split, as the text of an SVG."""
    splits = [split for split in SPLITS if report.of(split)]
    rows = max(len(report.of(split)) for split in splits)

    def draw(page: Figure) -> None:
        panels = page.subplots(1, len(splits), squeeze=False, sharex=True)[0]
        for split, axes in zip(splits, panels, strict=True):
            _draw_split(axes, split, report.of(split))

    return svg_file("agent-regret", 0.9 + 0.32 * rows, draw)


def write_files(report: AgentReport, cases_file: Path, folder: Path) -> None:
    """`agent.json`, `agent.md` and `agent.svg` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document(report, cases_file), indent=2, sort_keys=True)
    (folder / "agent.json").write_text(text + "\n", encoding="utf-8")
    (folder / "agent.md").write_text(
        "\n".join(markdown(sheet) for sheet in sheets(report)), encoding="utf-8"
    )
    (folder / "agent.svg").write_text(figure(report), encoding="utf-8")


def _draw_split(axes: Axes, split: str, scores: Sequence[Score]) -> None:
    axes.patch.set_alpha(0)
    for place, each in enumerate(reversed(scores)):
        ends = [each.regret.low, each.regret.high]
        axes.plot(ends, [place, place], color=STOCK_COLOUR, linewidth=2)
        axes.plot(each.regret.mean, place, "o", color=HMAS_COLOUR)
    axes.set_yticks(range(len(scores)), [each.contender for each in reversed(scores)])
    axes.set_xlim(left=min(0.0, *(each.regret.low for each in scores)))
    axes.set_xlabel("regret (attainment, 0..1)")
    axes.set_title(split.replace("_", " "))
    axes.grid(axis="x")


def _row(each: Score) -> list[str]:
    first = "-"
    if each.first_listed is not None:
        first = f"{each.first_listed:.0%} ({each.options})"
    regret = each.regret
    return [
        each.contender,
        f"{regret.mean:.3f}",
        f"{regret.low:.3f} to {regret.high:.3f}" if regret.n > 1 else "-",
        f"{each.accuracy:.0%}",
        "-" if each.validity is None else f"{each.validity:.0%}",
        "-" if each.steady is None else f"{each.steady:.0%}",
        first,
        "-" if each.latency_s is None else f"{each.latency_s:.2f} s",
        "-" if each.tokens is None else f"{each.tokens:.0f}",
    ]
