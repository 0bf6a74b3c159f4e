"""What would each candidate have brought? Labels of situations, by simulation in parallel.

Every candidate meets the same drawn futures, so that candidates differ in nothing else.
Called by `hmas eval agent` and `hmas replay`; what was computed once is kept on a shelf.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from evals.case_store import REPO, key_of
from evals.progress import CaseProgress
from evals.workers import OnProgress, WorkerPool
from hmas_agents.case_file import Candidate, Case, Labels, Plan, candidate_key, labelled
from hmas_agents.forecast import forecast
from hmas_agents.situation import Situation, encode_situation

# What a forecast goes through; an edit of a prompt or of a rule leaves labels as they are.
FORECAST_CODE = (
    "serving", "hmas_agents/forecast.py", "hmas_agents/futures.py", "hmas_agents/situation.py",
)  # fmt: skip
DIGITS = 5


@dataclass(frozen=True, slots=True)
class Question:
    """Which candidates to try in which situation. `title` is how progress names it."""

    title: str
    situation: Situation
    candidates: tuple[Candidate, ...]
    plan: Plan


def label_all(
    questions: Sequence[Question], *, jobs: int, kept_in: Path | None, progress: CaseProgress
) -> list[Labels]:
    """Attainment per future of each candidate, by `candidate_key`; one result per question.

    Args:
        questions: a worker takes one at a time.
        jobs: worker processes.
        kept_in: file that keeps labels for the next time; None keeps none.
        progress: a bar per question.

    Raises:
        WorkerError: a forecast failed.
    """
    kept = LabelFile(kept_in)
    known = [kept.find(each) for each in questions]
    open_ones = [
        (i, replace(each, candidates=todo))
        for i, each in enumerate(questions)
        if (todo := tuple(c for c in each.candidates if candidate_key(*c) not in known[i]))
    ]
    if open_ones and len(open_ones) < len(questions):
        progress.note(f"{len(questions) - len(open_ones)} of {len(questions)} were labelled before")
    bars = [
        progress.add(each.title, each.plan.draws * len(each.candidates)) for _, each in open_ones
    ]

    def on_done(number: int, labels: Labels) -> None:
        i, question = open_ones[number]
        kept.add(question, labels)
        known[i] |= labels
        progress.done(bars[number], _line(question, known[i]))

    with WorkerPool(min(jobs, len(open_ones))) as pool:  # a worker takes 10 s to import vLLM
        pool.map(
            answer,
            [each for _, each in open_ones],
            lambda number, done: progress.update(bars[number], done),
            on_done,
        )
    return [
        {key: labels[key] for key in map(_key_of, each.candidates)}
        for each, labels in zip(questions, known, strict=True)
    ]


def _key_of(candidate: Candidate) -> str:
    return candidate_key(*candidate)


def label_cases(
    cases: Sequence[Case],
    wanted: Mapping[str, Sequence[Candidate]],
    plan_of: Callable[[Case], Plan],
    *,
    jobs: int,
    kept_in: Path | None,
    progress: CaseProgress,
) -> list[Case]:
    """The cases with labels for each allowed policy, the incumbent and what is wanted beside.

    Args:
        cases: labels that are there stay, and further ones follow their plan.
        wanted: further candidates by case id.
        plan_of: the plan of a case without labels.
        jobs: as `label_all` takes it.
        kept_in: likewise.
        progress: likewise.

    Raises:
        WorkerError: a forecast failed.
    """
    questions = {
        case.id: Question(case.id, case.situation, todo, case.plan or plan_of(case))
        for case in cases
        if (todo := unlabelled(case, wanted.get(case.id, ())))
    }
    labels = label_all(list(questions.values()), jobs=jobs, kept_in=kept_in, progress=progress)
    found = dict(zip(questions, labels, strict=True))
    return [
        labelled(case, found[case.id], questions[case.id].plan) if case.id in found else case
        for case in cases
    ]


def unlabelled(case: Case, wanted: Sequence[Candidate] = ()) -> tuple[Candidate, ...]:
    """The allowed policies, the incumbent and what is wanted beside, as far as not labelled."""
    candidates = [*((name, {}) for name in case.allowed), case.incumbent, *wanted]
    by_key = {candidate_key(*each): each for each in candidates}
    return tuple(each for key, each in by_key.items() if key not in case.labels)


def answer(question: Question, on_progress: OnProgress) -> Labels:
    """Forecast every candidate of one question, in this process."""
    labels: Labels = {}
    plan, done = question.plan, 0
    for policy, params in question.candidates:
        shares = []
        for seed in range(plan.seed, plan.seed + plan.draws):
            future = forecast(
                question.situation, policy, params, seed=seed, horizon_s=plan.horizon_s
            )
            shares.append(round(future.attainment, DIGITS))
            done += 1
            on_progress(done)
        labels[candidate_key(policy, params)] = tuple(shares)
    return labels


class LabelFile:
    """Labels by situation and plan in a file of JSON lines (None: nowhere), a candidate at a time.

    One process writes it at a time. A line that was cut off when a run was killed is left out.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept: dict[str, Labels] = {}
        if path is None or not path.is_file():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                labels = {name: tuple(each) for name, each in row["labels"].items()}
                self._kept.setdefault(row["key"], {}).update(labels)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def find(self, question: Question) -> Labels:
        """What is kept for the situation, of these candidates or others."""
        return dict(self._kept.get(_key(question), {})) if self._kept else {}

    def add(self, question: Question, labels: Labels) -> None:
        """Keep labels."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": _key(question), "labels": labels}) + "\n")


def _key(question: Question) -> str:
    situation = json.dumps(encode_situation(question.situation), sort_keys=True)
    return key_of(situation, question.plan, _code_digest())


def _line(question: Question, labels: Labels) -> str:
    means = {key: sum(draws) / len(draws) for key, draws in labels.items()}
    best = max(means, key=lambda key: means[key])
    return f"{question.title}: best {best} {means[best]:.3f}, worst {min(means.values()):.3f}"


@lru_cache(maxsize=1)
def _code_digest() -> str:
    digest = hashlib.sha256()
    for name in FORECAST_CODE:
        top = REPO / name
        for path in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
            digest.update(path.read_bytes())
    return digest.hexdigest()
