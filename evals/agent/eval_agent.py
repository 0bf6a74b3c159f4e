"""How does one `hmas eval agent` go from a case file to scores, and how are these shown?

Rules, chance, the twin and the fixed policies need no model; each prompt version asked for is
a contender of its own. Labels that a proposal with parameters needs are computed on the way.
The scores are a table, JSON, Markdown, and a plot.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evals.agent import contenders
from evals.agent.contenders import Answer, Contender, Model
from evals.agent.labels import label_cases
from evals.agent.scoring import Score, balance, missing, open_to, regret_of, score
from evals.arms.cassette import Cassette
from evals.progress import CaseProgress
from evals.report.figures import HMAS_COLOUR, STOCK_COLOUR, svg_file
from evals.report.sheet import Sheet, markdown
from evals.result.metrics import rounded
from hmas_agents.case_file import Case, CaseError, Plan, Split, read_cases
from hmas_agents.config import ModelConfig
from prompts.loader import load_prompt
from serving.policies import parse_policy

SPLITS: tuple[Split, ...] = ("development", "held_out")
PLAN = Plan(draws=4, seed=1000, horizon_s=30.0)  # of cases that come without labels
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


@dataclass(frozen=True, slots=True)
class AgentEval:
    """What to score."""

    cases: Path
    model: ModelConfig | None  # endpoint and limits; None asks no model
    # (name, label or version) of each prompt version to ask with.
    prompts: tuple[tuple[str, str], ...]
    rotations: int  # orders of the options that each question is asked in
    cassette: Path | None
    record: bool
    jobs: int
    limit: int | None = None  # at most so many cases of each split, spread evenly; None takes all
    # Questions that a model is asked at the same time; its latency is then under that load.
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class AgentReport:
    """The scores, contender by contender, and the cases that they are over."""

    cases: list[Case]
    scores: list[Score]
    models: tuple[str, ...]

    def of(self, split: Split) -> list[Score]:
        """The scores of one split, lowest regret first."""
        chosen = [each for each in self.scores if each.split == split]
        return sorted(chosen, key=lambda each: each.regret.mean)

    def gated(self) -> list[Score]:
        """What a threshold applies to: the models that were asked, else the rules.

        On the held-out cases where there are any.
        """
        split = SPLITS[1] if self.of(SPLITS[1]) else SPLITS[0]
        return [each for each in self.of(split) if each.contender in (self.models or ("rules",))]


def run_agent_eval(request: AgentEval, progress: CaseProgress) -> AgentReport:
    """Score every contender on every case.

    Raises:
        CaseError, PromptError, CassetteError: an input cannot be used.
        WorkerError: a forecast failed.
    """
    cases = _limited(read_cases(request.cases), request.limit)
    cases = label_cases(cases, {}, lambda _: PLAN, request.jobs, progress)
    with ExitStack() as stack:
        entered = _contenders(cases, request, stack)
        answers = {
            name: _asked(name, contender, cases, request.at_once, progress)
            for name, contender in entered.items()
        }
    every = [answer for each in answers.values() for answer in each]
    if wanted := missing(every):
        cases = label_cases(cases, wanted, lambda _: PLAN, request.jobs, progress)
    by_id = {case.id: case for case in cases}
    scores = []
    for name, given in answers.items():
        relabelled = [replace(answer, case=by_id[answer.case.id]) for answer in given]
        for split in SPLITS:
            of_split = [answer for answer in relabelled if answer.case.split == split]
            if of_split:
                scores.append(score(name, split, of_split))
    models = tuple(name for name in answers if isinstance(entered[name], Model))
    return AgentReport(cases, scores, models)


def fixed_choices(cases: Sequence[Case]) -> list[str]:
    """What could be chosen in every case, the least regret over the development cases first.

    Without development cases: over all.

    Raises:
        CaseError: there is no such candidate.
    """
    known = [case for case in cases if case.split == "development"] or list(cases)
    choices = [open_to(case.labels, case.allowed) for case in cases]
    everywhere = [key for key in known[0].labels if all(key in each for each in choices)]
    if not everywhere:
        raise CaseError("cases: no policy is allowed in every case: there is no fixed one")
    return sorted(
        everywhere, key=lambda key: fmean(regret_of(case, parse_policy(key)) for case in known)
    )


def _contenders(
    cases: Sequence[Case], request: AgentEval, stack: ExitStack
) -> dict[str, Contender]:
    best, *others = fixed_choices(cases)
    entered: dict[str, Contender] = {
        "rules": contenders.rules,
        "random": contenders.chance,
        "stay": contenders.stay,
        f"best fixed ({best})": contenders.fixed(best),
        **{f"fixed {each}": contenders.fixed(each) for each in others},
    }
    if all(case.twin for case in cases):
        entered["twin"] = contenders.twin
    if request.model is None:
        return entered
    tape = None
    if request.cassette is not None:
        tape = Cassette(request.cassette, record=request.record)
        stack.callback(tape.close)
    for name, version in request.prompts:
        prompt = load_prompt(name, version)
        model = Model(request.model, prompt, request.rotations, tape, request.at_once)
        stack.callback(model.close)
        asked = request.model.name or "model"
        entered[f"{asked}, {name} v{prompt.head.version}"] = model
    return entered


def _asked(
    name: str, contender: Contender, cases: Sequence[Case], at_once: int, progress: CaseProgress
) -> list[Answer]:
    bar = progress.add(name, len(cases))
    answers = []
    # Others than a model answer in no time: threads change nothing for them.
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for done, answer in enumerate(pool.map(contender, cases), start=1):
                answers.append(answer)
                progress.update(bar, done)
        except BaseException:  # Ctrl-C too: what was not asked yet shall not be
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(contender, Model):
                contender.close()
            raise
    progress.done(bar, f"{name}: {len(cases)} cases")
    return answers


def _limited(cases: list[Case], limit: int | None) -> list[Case]:
    """At most `limit` of each split, spread evenly over the file."""
    if limit is None:
        return cases
    kept: list[Case] = []
    for split in SPLITS:
        of_split = [case for case in cases if case.split == split]
        count = min(limit, len(of_split))
        kept += [of_split[i * len(of_split) // count] for i in range(count)]
    return kept


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
