"""What would each candidate have brought? Labels of situations, by simulation in parallel.

Every candidate meets the same drawn futures, so that candidates differ in nothing else.
Called by `hmas eval agent` and `hmas replay`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evals.progress import CaseProgress
from evals.sim.workers import Workers
from hmas_agents.case_file import Candidate, Case, Labels, Plan, candidate_key, labelled
from hmas_agents.situation import Situation
from hmas_agents.twin.forecast import Forecasts
from hmas_agents.twin.question import Candidate as Setting

DIGITS = 5


@dataclass(frozen=True, slots=True)
class Question:
    """Which candidates to try in which situation. `title` is how progress names it."""

    title: str
    situation: Situation
    candidates: tuple[Candidate, ...]
    plan: Plan


def label_all(questions: Sequence[Question], *, jobs: int, progress: CaseProgress) -> list[Labels]:
    """Attainment per future of each candidate, by `candidate_key`; one result per question.

    Raises:
        WorkerError: a forecast failed.
    """
    with Workers(jobs, progress) as workers:
        return workers.run(answer, questions, lambda question: question.title, _line)


def label_cases(
    cases: Sequence[Case],
    wanted: Mapping[str, Sequence[Candidate]],
    plan_of: Callable[[Case], Plan],
    jobs: int,
    progress: CaseProgress,
) -> list[Case]:
    """The cases with labels for each allowed policy, the incumbent and what is wanted beside.

    Labels that are there stay, and further ones follow their plan; `plan_of` is asked for the plan
    of a case without labels. `wanted` are further candidates by case id.

    Raises:
        WorkerError: a forecast failed.
    """
    questions = {
        case.id: Question(case.id, case.situation, todo, case.plan or plan_of(case))
        for case in cases
        if (todo := unlabelled(case, wanted.get(case.id, ())))
    }
    labels = label_all(list(questions.values()), jobs=jobs, progress=progress)
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


def answer(question: Question) -> Labels:
    """Forecast every candidate of one question, in this process."""
    labels: Labels = {}
    plan, forecasts = question.plan, Forecasts(question.situation, question.plan.horizon_s)
    for policy, params in question.candidates:
        shares = []
        for seed in range(plan.seed, plan.seed + plan.draws):
            share = forecasts.forecast(Setting(policy, params), seed).worth
            shares.append(round(share, DIGITS))
        labels[candidate_key(policy, params)] = tuple(shares)
    return labels


def _line(question: Question, labels: Labels) -> str:
    means = {key: sum(draws) / len(draws) for key, draws in labels.items()}
    best = max(means, key=lambda key: means[key])
    return f"{question.title}: best {best} {means[best]:.3f}, worst {min(means.values()):.3f}"
