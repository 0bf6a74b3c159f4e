"""How sure is a forecast, and when is one candidate better than another? Pure statistics.

Used by the twin and by the choice; the formulas are this project's own.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

UNTESTED_ERROR = 0.05  # of a twin whose predictions have never met reality
ERRORS_KEPT = 20
NOT_PURSUED = 1.0  # the margin of a candidate that was tried on one future alone
_SIDES = 2.0  # an interval reaches so many standard deviations to either side


@dataclass(frozen=True, slots=True)
class Prediction:
    """The twin's view of one candidate: its attainment (0..1) in each future, in order."""

    attainments: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the futures."""
        return statistics.fmean(self.attainments)

    @property
    def spread(self) -> float:
        """Standard deviation over the futures; 0 for a single one."""
        return _spread(self.attainments)

    def interval(self, error: float) -> tuple[float, float]:
        """Where the realised attainment should lie in 19 windows of 20.

        mean -+ 2 * max(spread over the futures, past error): the first is what the futures
        differ by, the second what reality has differed by.
        """
        half = _SIDES * max(self.spread, error)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)


def rms(errors: Sequence[float]) -> float:
    """Root mean square of predicted - realised; UNTESTED_ERROR when there is none yet."""
    if not errors:
        return UNTESTED_ERROR
    return math.sqrt(math.fsum(e * e for e in errors) / len(errors))


def gain(candidate: Prediction, incumbent: Prediction) -> float:
    """Mean difference over the futures that both have seen, the first left out.

    By the first one candidates are chosen to be tried on more, so the lead that one has
    there is partly luck (the winner's curse); only where there is no other does it count.
    """
    return statistics.fmean(_fresh(_differences(candidate, incumbent)))


def bias(errors: Sequence[float]) -> float:
    """The part of past errors that does not average out: |sum| / (n + 1), from UNTESTED_ERROR.

    What an error owes to the one future that came is in the spread over drawn futures
    already; a twin that is wrong in the same direction again and again is not.
    """
    return (UNTESTED_ERROR + abs(math.fsum(errors))) / (len(errors) + 1)


def gain_margin(candidate: Prediction, incumbent: Prediction, bias: float, least: float) -> float:
    """What `gain` must exceed before the candidate may replace the incumbent.

    max(least, bias) and on top of it the standard error of the gain over its futures. One
    future alone knows no standard error: twice the others. A candidate that was tried on the
    first only, and not on the further ones of the incumbent, may not replace it: 1.
    """
    differences = _differences(candidate, incumbent)
    if len(differences) < 2 <= len(incumbent.attainments):
        return NOT_PURSUED
    fresh = _fresh(differences)
    if len(fresh) < 2:
        return 2 * max(least, bias)
    return max(least, bias) + _spread(fresh) / math.sqrt(len(fresh))


def terms(
    candidate: Prediction, incumbent: Prediction, bias: float, least: float
) -> dict[str, float]:
    """What `gain` and `gain_margin` were made of, for who reads the decision.

    `against`: the incumbent's mean on the candidate's futures; `futures`: how many the gain is
    taken from; `chance`: the gain's standard error over them; `bias` and `least`, as given.
    """
    fresh = _fresh(_differences(candidate, incumbent))
    shared = incumbent.attainments[: len(candidate.attainments)]
    return {
        "against": statistics.fmean(shared),
        "futures": len(fresh),
        "chance": _spread(fresh) / math.sqrt(len(fresh)),
        "bias": bias,
        "least": least,
    }


def _fresh(differences: list[float]) -> list[float]:
    return differences[1:] or differences


def _differences(candidate: Prediction, incumbent: Prediction) -> list[float]:
    pairs = zip(candidate.attainments, incumbent.attainments, strict=False)
    return [ours - theirs for ours, theirs in pairs]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
