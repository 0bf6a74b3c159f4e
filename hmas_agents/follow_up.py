"""What came of a decision? Waits for the following window and judges it.

Called by the long horizon: realised attainment goes back to the ledger and into the
twin's error, and a switch that disappoints is rolled back.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hmas_agents.records import Proposal

ROLLBACK_SHORTFALL = 0.10
ROLLBACK_REQUESTS = 30

Realised = Callable[[float, float], tuple[float, int] | None]


@dataclass(frozen=True, slots=True)
class Watched:
    """A decision whose window is not over. `previous` is what a switch replaced."""

    decision_id: int
    since_s: float
    until_s: float
    predicted: float | None
    previous: Proposal | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A decision whose window is over, and how it went."""

    watched: Watched
    attainment: float
    requests: int


class FollowUp:
    """Decisions waiting for their window, oldest first."""

    def __init__(self) -> None:
        self._watched: list[Watched] = []

    def watch(self, watched: Watched) -> None:
        """Remember a decision until its window is over."""
        self._watched.append(watched)

    def settle(self, now_s: float, realised: Realised, final: bool = False) -> list[Settled]:
        """Decisions whose window is over by now (all of them if `final`), oldest first."""
        over = [w for w in self._watched if final or w.until_s <= now_s]
        self._watched = [w for w in self._watched if w not in over]
        settled = []
        for watched in over:
            result = realised(watched.since_s, min(watched.until_s, now_s))
            if result is not None:
                settled.append(Settled(watched, *result))
        return settled


def rollback_of(settled: Settled, error: float | None) -> Proposal | None:
    """The policy to go back to, or None if the switch may stay.

    A switch is rolled back when at least 30 requests show an attainment below the
    prediction by more than max(0.1, 2 x the twin's error before this observation).
    """
    watched = settled.watched
    if watched.previous is None or watched.predicted is None:
        return None
    shortfall = watched.predicted - settled.attainment
    if settled.requests < ROLLBACK_REQUESTS or shortfall <= max(
        ROLLBACK_SHORTFALL, 2 * (error or 0.0)
    ):
        return None
    return Proposal(
        source="rules",
        policy=watched.previous.policy,
        params=dict(watched.previous.params),
        reason=f"rollback: realised {settled.attainment:.2f}, predicted {watched.predicted:.2f}",
    )
