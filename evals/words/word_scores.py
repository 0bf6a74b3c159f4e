"""How often is a text read exactly, asked back about, or read wrongly without a doubt?"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from evals.words.word_cases import WordCase
from hmas_agents.intent.change import Answer, Change, ChangeError, Question, canonical, read_answer
from hmas_agents.intent.reading import Reader

FIELDS = tuple(field.alias or name for name, field in Change.model_fields.items())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reader made of one case.

    Attributes:
        answer: the one it acts on: a question where it was not sure enough; None where its reply
            was not valid, so that nothing can act on it.
        fault: what is wrong with a reply that is not valid.
    """

    case: WordCase
    answer: Answer | None
    latency_s: float
    fault: str = ""

    @property
    def is_exact(self) -> bool:
        """The changes of the case and no others, in any order; or a question, as in the case."""
        return self.answer is not None and canonical(self.answer) == canonical(self.case.expected)

    @property
    def is_to_ask(self) -> bool:
        """The case is one to ask back about."""
        return isinstance(self.case.expected, Question)

    @property
    def is_asked(self) -> bool:
        """It asked back."""
        return isinstance(self.answer, Question)

    @property
    def is_wrong_confident(self) -> bool:
        """It would put in force what was not said."""
        return isinstance(self.answer, tuple) and not self.is_exact


@dataclass(frozen=True, slots=True)
class WordScore:
    """A contender's row; all but `cases` and `latency_s` are shares of the cases.

    Attributes:
        by_field: of the cases whose expected or given changes have this field, the share where
            its values over all changes are right; `question`: of the cases that are to be asked
            back about, the share in which it asked. None where there is no such case.
        latency_s: `p50` and `p99` of reading one text.
    """

    name: str
    cases: int
    exact: float
    valid: float
    asked: float
    wrong_confident: float
    by_field: dict[str, float | None]
    latency_s: dict[str, float]


def outcomes(
    reader: Reader,
    cases: Sequence[WordCase],
    on_case: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Read every case; where the reader is not sure enough, a question stands for its reply.

    `on_case` is told how many cases of how many were read.
    """
    found = []
    for case in cases:
        found.append(_outcome(reader, case))
        if on_case is not None:
            on_case(len(found), len(cases))
    return found


def score(name: str, found: Sequence[Outcome]) -> WordScore:
    """The row of a contender."""
    p50, p99 = np.percentile([each.latency_s for each in found], (50, 99))
    return WordScore(
        name,
        len(found),
        exact=_share([each.is_exact for each in found]) or 0.0,
        valid=_share([each.answer is not None for each in found]) or 0.0,
        asked=_share([each.is_asked for each in found]) or 0.0,
        wrong_confident=_share([each.is_wrong_confident for each in found]) or 0.0,
        by_field={field: _right(field, found) for field in FIELDS}
        | {"question": _share([e.is_asked for e in found if e.is_to_ask])},
        latency_s={"p50": float(p50), "p99": float(p99)},
    )


def _outcome(reader: Reader, case: WordCase) -> Outcome:
    began_s = perf_counter()
    reading = reader.read(case.text, case.now, case.names)
    latency_s = perf_counter() - began_s
    try:
        answer = read_answer(reading.reply, case.names, case.now)
    except ChangeError as error:
        return Outcome(case, None, latency_s, str(error))
    if not reading.is_clear:
        answer = Question(question="Please say that again in other words.")
    return Outcome(case, answer, latency_s)


def _right(field: str, found: Sequence[Outcome]) -> float | None:
    pairs = [(_values(each.case.expected, field), _values(each.answer, field)) for each in found]
    return _share([wanted == given for wanted, given in pairs if wanted or given])


def _values(answer: Answer | None, field: str) -> Counter[object]:
    """How often each value of a field is said over all changes."""
    if not isinstance(answer, tuple):
        return Counter()
    said = [change.model_dump(by_alias=True, exclude_none=True) for change in answer]
    return Counter(each[field] for each in said if field in each)


def _share(truths: Sequence[bool]) -> float | None:
    return sum(truths) / len(truths) if truths else None
