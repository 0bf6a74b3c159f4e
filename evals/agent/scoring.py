"""How good are a contender's choices? Regret, accuracy, validity, position bias, cost.

Regret of a case: attainment (0..1) of the best label less that of what was chosen. The best of
several noisy labels is a little too high, so regret is never quite 0 for anybody: read it
against the row `twin`. Called by `hmas eval agent`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from evals.agent.contenders import Answer
from evals.result.statistics import Interval, mean_interval
from hmas_agents.case_file import Candidate, Case, Labels, Split, candidate_key
from serving.policies import parse_policy

AS_GOOD = 0.005  # half a point of attainment: nobody would switch for less


@dataclass(frozen=True, slots=True)
class Score:
    """What one contender comes to on one split."""

    contender: str
    split: Split
    cases: int
    scenarios: int
    regret: Interval  # mean over scenarios of the scenario's mean, with an interval over scenarios
    accuracy: float  # share of choices that the labels cannot tell from the best
    # Share of questions with a usable reply; None without a model, as below.
    validity: float | None = None
    # Share of cases where every order of the options got the same answer.
    steady: float | None = None
    # Share of replies that named the option listed first; `options` is how many there were, so
    # 1/options is no bias.
    first_listed: float | None = None
    options: int | None = None
    latency_s: float | None = None  # median, None where replies were played from a cassette
    tokens: float | None = None  # mean per question
    faults: dict[str, int] | None = None  # how often each kind occurred


def score(contender: str, split: Split, answers: Sequence[Answer]) -> Score:
    """Score the answers to the cases of one split.

    Raises:
        ValueError: there are none.
        KeyError: a choice has no label; see `missing`.
    """
    regrets: dict[str, list[float]] = defaultdict(list)
    right = []
    for answer in answers:
        regrets[answer.case.scenario].append(
            fmean(regret_of(answer.case, choice) for choice in answer.choices)
        )
        right += [is_right(answer.case.labels, choice) for choice in answer.choices]
    base = Score(
        contender=contender,
        split=split,
        cases=len(answers),
        scenarios=len(regrets),
        regret=mean_interval([fmean(each) for each in regrets.values()]),
        accuracy=fmean(right),
    )
    return _with_replies(base, answers)


def regret_of(case: Case, choice: Candidate) -> float:
    """Attainment of the best label among the allowed, less that of the choice."""
    best = best_of(case.labels, case.allowed)
    return fmean(case.labels[best]) - fmean(case.labels[candidate_key(*choice)])


def best_of(labels: Labels, allowed: Sequence[str]) -> str:
    """The labelled candidate of an allowed policy with the highest mean; of equals the first."""
    return max(open_to(labels, allowed), key=lambda key: fmean(labels[key]))


def open_to(labels: Labels, allowed: Sequence[str]) -> list[str]:
    """The labelled candidates whose policy is allowed, in the order of the labels."""
    return [key for key in labels if parse_policy(key)[0] in allowed]


def is_right(labels: Labels, choice: Candidate) -> bool:
    """Whether the choice is the best, or the labels cannot tell it from the best.

    They cannot where the paired difference over the futures is below half a point, or its
    interval holds 0.
    """
    chosen = labels[candidate_key(*choice)]
    best = max(labels.values(), key=fmean)
    loss = mean_interval([b - c for b, c in zip(best, chosen, strict=True)])
    return loss.mean <= AS_GOOD or (loss.n > 1 and loss.low <= 0.0)


def missing(answers: Sequence[Answer]) -> dict[str, tuple[Candidate, ...]]:
    """Choices that have no label yet (parameters off their defaults), by case."""
    wanted: dict[str, dict[str, Candidate]] = defaultdict(dict)
    for answer in answers:
        for choice in answer.choices:
            key = candidate_key(*choice)
            if key not in answer.case.labels:
                wanted[answer.case.id][key] = choice
    return {case: tuple(choices.values()) for case, choices in wanted.items()}


def balance(cases: Sequence[Case]) -> dict[str, dict[str, int]]:
    """For each split, how often each candidate is best (the first of equal ones).

    Cases where the best is no more than half a point above the worst count as `any`.
    """
    counted: dict[str, dict[str, int]] = {}
    for case in cases:
        of_split = counted.setdefault(case.split, {"any": 0})
        of_split |= {key: 0 for key in open_to(case.labels, case.allowed) if key not in of_split}
        best, means = best_of(case.labels, case.allowed), map(fmean, case.labels.values())
        is_any = fmean(case.labels[best]) - min(means) <= AS_GOOD
        of_split["any" if is_any else best] += 1
    return counted


def _with_replies(base: Score, answers: Sequence[Answer]) -> Score:
    asked = [each for answer in answers for each in answer.asked]
    if not asked:
        return base
    faults: dict[str, int] = defaultdict(int)
    for each in asked:
        for fault in each.faults:
            faults[fault.partition(":")[0]] += 1
    usable = [(each, each.choice[0]) for each in asked if each.choice is not None]
    named = [
        {each.choice and each.choice[0] for each in answer.asked}
        for answer in answers
        if len(answer.asked) > 1
    ]
    timed = [each.latency_s for each in asked if each.latency_s is not None]
    return replace(
        base,
        validity=len(usable) / len(asked),
        steady=fmean(len(each) == 1 and None not in each for each in named) if named else None,
        first_listed=fmean(name == each.options[0] for each, name in usable) if usable else None,
        options=len(asked[0].options),
        latency_s=median(timed) if timed else None,
        tokens=fmean(each.tokens for each in asked),
        faults=dict(faults),
    )
