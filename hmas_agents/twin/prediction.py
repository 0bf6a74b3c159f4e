"""How sure is a forecast, and when is one candidate better than another? Pure statistics.

Futures say how much the coming minute may differ; the ledger says how much more reality differed
from them, which makes intervals. A switch is judged by differences on common futures, in which
what all candidates share, and the twin gets wrong, cancels.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.engines.branches import Forecast

COVERAGE = 0.9  # of an interval
# How many times its risk a candidate must gain. By this one of fifty that differ by chance alone
# would replace the other on 16 futures, one of seven on 4.
CAUTION = 6.0
NOT_PURSUED = 1.0  # the margin of a candidate that was not tried on every future
SCORES_KEPT = 60
# Before the ledger knows better, reality differs from the futures as a normal variable would that
# is so many times as wide as they are: chosen on seeds 1 to 10 of the suite `search` (1.5
# held 84% of what came, 2.5 93%). The farthest of these scores are forgotten first.
WIDER = 2.0
_NORMAL = [statistics.NormalDist().inv_cdf((i + 0.5) / 20) for i in range(20)]
_ASSUMED = [WIDER * deviation for deviation in sorted(_NORMAL, key=abs, reverse=True)]


class Past(NamedTuple):
    """A prediction that has met reality.

    Attributes:
        predicted: attainment, mean over the futures.
        spread: as `Prediction.spread` gives it.
        realised: attainment.
    """

    predicted: float
    spread: float
    realised: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The twin's view of one candidate.

    Attributes:
        forecasts: one of each future, in order.
        offered: requests that count in a future, on average.
    """

    forecasts: tuple[Forecast, ...]
    offered: float = math.inf

    @property
    def mean(self) -> float:
        """Attainment (0..1), over the futures."""
        return statistics.fmean(one.attainment for one in self.forecasts)

    @property
    def worth(self) -> float:
        """See `Forecast`; over the futures."""
        return statistics.fmean(one.worth for one in self.forecasts)

    @property
    def spread(self) -> float:
        """Its standard deviation over the futures; at least one request of those that count."""
        spread = _spread([one.attainment for one in self.forecasts])
        return max(spread, 1.0 / max(self.offered, 1.0))


@dataclass(slots=True)
class Calibration:
    """How far reality lay from predictions, in spreads of their futures. Newest last.

    Split conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005) on
    signed scores, so that a twin that errs to one side has intervals that reach to the other. It
    starts from 20 assumed scores, which 60 decisions replace.
    """

    past: deque[Past] = field(default_factory=lambda: deque(maxlen=SCORES_KEPT))

    @classmethod
    def of(cls, past: Iterable[Past]) -> "Calibration":
        """From what the ledger remembers, oldest first."""
        return cls(deque(past, SCORES_KEPT))

    @property
    def error(self) -> float | None:
        """Root mean square of predicted - realised; None before the first."""
        if not self.past:
            return None
        squares = [(p.predicted - p.realised) ** 2 for p in self.past]
        return math.sqrt(math.fsum(squares) / len(squares))

    @property
    def factors(self) -> tuple[float, float]:
        """How many spreads an interval reaches below the mean (negative), and above."""
        seen = [(past.realised - past.predicted) / past.spread for past in self.past]
        scores = sorted([*_ASSUMED, *seen][-SCORES_KEPT:])
        beyond = (1.0 - COVERAGE) / 2 * (len(scores) + 1)
        outside = max(0, math.floor(beyond) - 1)
        return scores[outside], scores[-1 - outside]

    def interval(self, prediction: Prediction) -> tuple[float, float]:
        """Where the realised attainment should lie in 9 windows of 10."""
        below, above = self.factors
        mean, spread = prediction.mean, prediction.spread
        return max(0.0, min(1.0, mean + below * spread)), max(0.0, min(1.0, mean + above * spread))


def margin(candidate: Prediction, incumbent: Prediction) -> float:
    """What the candidate's `gain` must exceed before it may replace the incumbent.

    As many times the risk of its losses. How much it gains differs between futures, which have
    quiet and busy ones among them, and that is no reason for doubt: only where it loses is. At
    least one request of those that count. A candidate that was not tried on all futures of the
    incumbent may not replace it: 1.
    """
    fresh = _fresh(candidate, incumbent)
    if len(fresh) < 2:
        return NOT_PURSUED
    return max(CAUTION * _risk(fresh), 1.0 / max(candidate.offered, 1.0))


def terms(candidate: Prediction, incumbent: Prediction) -> dict[str, float]:
    """What gain and margin were made of, for people who read the decision.

    `against`: the incumbent's mean on the candidate's futures; `futures`: how many the gain is
    taken from; `risk`: of its losses over them; `caution`: how many times.
    """
    differences = _fresh(candidate, incumbent) or _differences(candidate, incumbent)
    return {
        "against": Prediction(incumbent.forecasts[: len(candidate.forecasts)]).mean,
        "futures": len(differences),
        "risk": _risk(differences),
        "caution": CAUTION,
    }


def gain(candidate: Prediction, incumbent: Prediction) -> float:
    """Mean difference over the futures that did not choose the candidate.

    By the first half candidates are chosen to be tried on the second, so the lead that one has
    there is partly luck (the winner's curse). Of one that did not get that far it is the mean over
    what both have seen.
    """
    return statistics.fmean(_fresh(candidate, incumbent) or _differences(candidate, incumbent))


def _fresh(candidate: Prediction, incumbent: Prediction) -> list[float]:
    if len(candidate.forecasts) < len(incumbent.forecasts):
        return []
    return _differences(candidate, incumbent)[len(incumbent.forecasts) // 2 :]


def _differences(candidate: Prediction, incumbent: Prediction) -> list[float]:
    pairs = zip(candidate.forecasts, incumbent.forecasts, strict=False)
    return [ours.worth - theirs.worth for ours, theirs in pairs]


def _risk(differences: Sequence[float]) -> float:
    """Standard error that losses alone give a mean: below-target semideviation (Markowitz 1959)."""
    return math.hypot(*(min(0.0, each) for each in differences)) / len(differences)


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
