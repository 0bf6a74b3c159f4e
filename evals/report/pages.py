"""What does the evidence come to? Pages of evals/results, written from their summaries alone.

A folder of evals/results with `run.json` and `summary.csv`, as `hmas eval run --out` leaves them,
gets a page beside it, and a line in the README's table. No number is written by hand.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.report.files import rendered
from evals.report.sheet import Sheet, markdown
from evals.report.summary import MET_NAMED, MET_OTHERS, Summary
from evals.report.tables import over_loads, percent, points, times, whole_suite
from evals.result.statistics import Interval
from evals.suite.contenders import ARMS, EXACT, HMAS, IN_ADVANCE, STOCK, TOLD

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "evals" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- evidence: begin -->", "<!-- evidence: end -->"


class PageError(ValueError):
    """A folder of results that gives no page; names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a page is made of: figures, and the document of `hmas eval run` without results."""

    name: str
    run: dict[str, Any]
    summary: Summary

    @property
    def is_live(self) -> bool:
        """Whether servers were measured; no simulator."""
        return any(": engine: live " in source for source in self.run.get("sources", []))

    @property
    def is_about_words(self) -> bool:
        """Whether something was said to some arms; all have the same traffic and machine."""
        return self.summary.has(MET_NAMED)

    @property
    def baselines(self) -> list[str]:
        """Arms that are neither parts of H-MAS nor references; servers by URL are some, too."""
        return [arm for arm in self.summary.each("arm") if _is_baseline(arm)]

    def over_best(self, cases: Summary) -> tuple[str, Interval] | None:
        """The best baseline of some cases, and goodput of H-MAS over it."""
        best = cases.best(self.baselines, "goodput_rps")
        ratio = cases.ratio(HMAS, best) if best else None
        return (best, ratio) if best and ratio else None


def read_evidence(results: Path = RESULTS) -> list[Evidence]:
    """Every folder that has a run.

    Raises:
        PageError: a run without its summary, or simulated runs of different commits. A live run
            may have its own: no simulator decided what came out. So may those about words, which
            are not compared with the others.
    """
    found = []
    for file in sorted(results.glob("*/run.json")):
        try:
            run = json.loads(file.read_bytes())
            found.append(Evidence(file.parent.name, run, Summary.read(file.parent / "summary.csv")))
        except (OSError, ValueError) as error:
            raise PageError(f"{file.parent}: {error}: run `hmas eval run --out` again") from error
    for about_words in (False, True):
        alike = [e for e in found if not e.is_live and e.is_about_words == about_words]
        commits = {each.run.get("git", {}).get("commit", "")[:12] for each in alike}
        if len(commits) > 1:
            raise PageError(f"{results}: runs of several commits ({', '.join(sorted(commits))})")
    return found


def pages_of(every: Sequence[Evidence]) -> dict[Path, str]:
    """The text of every page, and of the project's README."""
    pages = {RESULTS / f"{each.name}.md": page_of(each) for each in every}
    if every:
        compared = [each for each in every if not each.is_about_words]
        pages[README] = with_evidence(README.read_text(encoding="utf-8"), compared)
    return pages


def page_of(evidence: Evidence) -> str:
    """Question, answer, where it loses, tables, plots, conditions, caveats."""
    return rendered(
        "answer.md.j2", run=evidence.run, name=evidence.name, config=evidence.run["config"],
        is_live=evidence.is_live, answer=answer(evidence), losses=markdown(losses(evidence)),
        tables=[markdown(sheet) for sheet in _tables(evidence.summary)],
        plots=sorted(path.name for path in (RESULTS / evidence.name).glob("*.svg")),
    )  # fmt: skip


def answer(evidence: Evidence) -> list[str]:
    """Two lines: where the engine has enough, and where it has too little.

    Where words are the question: what they are worth, and to whom.
    """
    if evidence.is_about_words:
        return _answer_about_words(evidence)
    lines = []
    for what, loads in (
        ("At or below 0.8 times capacity", [x for x in _loads(evidence) if x <= 0.8]),
        ("Above 0.8 times capacity", [x for x in _loads(evidence) if x > 0.8]),
    ):
        ratios, bests = [], []
        for _, cases in evidence.summary.stretches():
            for load in (each for each in loads if each in cases.each("load")):
                one = cases.only(load=load)
                if (stock := one.ratio(HMAS, STOCK)) is not None:
                    ratios.append(stock.mean)
                if (best := evidence.over_best(one)) is not None:
                    bests.append(best[1].mean)
        if ratios and bests:
            lines.append(
                f"{what}, goodput of H-MAS is {_range(ratios)} times that of stock vLLM, and "
                f"{_range(bests)} times that of the best baseline of each case."
            )
    return lines


def _answer_about_words(evidence: Evidence) -> list[str]:
    summary, gains = evidence.summary, list[str]()
    for arm in (arm for arm in summary.each("arm") if arm in TOLD):
        if (ratio := summary.ratio(arm, HMAS, "goodput_weighted_rps")) is not None:
            gains.append(f"{times(ratio)} `{arm}`")
    lines = [f"Goodput by weight over H-MAS that hears nothing: {', '.join(gains)}."]
    told = IN_ADVANCE if IN_ADVANCE in summary.each("arm") else EXACT
    met = [
        f"{name} {percent(cases.mean(MET_NAMED, told))} and {percent(cases.mean(MET_OTHERS, told))}"
        for name, cases in summary.stretches()
    ]
    return [*lines, f"Whom words name, and the others, `{told}`: {', '.join(met)} met."]


def losses(evidence: Evidence) -> Sheet:
    """Every case in which an arm that an operator could run is ahead, and chance is no reason."""
    rows = []
    for name, cases in evidence.summary.stretches():
        for load in sorted(cases.each("load")):
            one = cases.only(load=load)
            for arm in one.each("arm"):
                less = None if arm == HMAS or _is_reference(arm) else one.difference(HMAS, arm)
                if less is not None and less.mean < 0 and less.excludes(0.0):
                    rows.append([name, f"{load:g}x", arm, points(less)])
    note = "Points of attainment, 95% intervals over seeds, each comparison by itself."
    if not rows:
        rows = [["nowhere", "-", "-", "-"]]
    return Sheet("Where it loses", ("scenario", "load", "arm", "H-MAS less arm"), rows, note, 3)


def with_evidence(text: str, every: Sequence[Evidence]) -> str:
    """The README with its table of evidence made anew.

    Raises:
        PageError: the marks of its place are missing.
    """
    if BEGIN not in text or END not in text:
        raise PageError(f"README.md: lacks {BEGIN} and {END}")
    heads = ("suite", "load", "met", "over stock", "over the best baseline", "which")
    rows = []
    for each in every:
        for load in _loads(each):
            one = each.summary.only(load=load)
            best = each.over_best(one)
            rows.append([
                f"[{each.name}](evals/results/{each.name}.md)", f"{load:g}x",
                percent(one.mean("attainment", HMAS)), times(one.ratio(HMAS, STOCK)),
                times(best and best[1]), best[0] if best else "-",
            ])  # fmt: skip
    table = markdown(Sheet("", heads, rows, left_aligned=2)).removeprefix("## \n\n")
    return re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{table}{END}", text,
        flags=re.S,
    )  # fmt: skip


def _tables(summary: Summary) -> list[Sheet]:
    return [
        *whole_suite(summary),
        *(sheet for name, cases in summary.stretches() for sheet in over_loads(name, cases)),
    ]


def _is_baseline(arm: str) -> bool:
    known = ARMS.get(arm.partition(":")[0])
    return known.baseline if known else not arm.startswith("fixed-")


def _is_reference(arm: str) -> bool:
    known = ARMS.get(arm.partition(":")[0])
    return known is not None and known.reference


def _loads(evidence: Evidence) -> list[float]:
    return sorted(evidence.summary.each("load"))


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
