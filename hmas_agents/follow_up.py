"""What came of a decision? Waits for the following window and judges it.

Called by the long horizon: realised attainment goes back to the ledger and into the
twin's error, and a switch that disappoints is rolled back to what was last known good.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from hmas_agents.choice import key_of
from hmas_agents.records import Proposal

ROLLBACK_REQUESTS = 30
KNOWN_GOOD_KEPT = 8
ROLLBACK = "rollback:"  # how the reason of one begins

Realised = Callable[[float, float], tuple[float, int] | None]
Reach = Literal["under", "inside", "above"]


@dataclass(frozen=True, slots=True)
class Watched:
    """A decision whose window is not over.

    Attributes:
        predicted, low, high, spread: attainment of the window as predicted, its interval, and
            how far its futures were apart.
        previous: what a switch replaced; None where nothing was switched.
        in_force: what the window is spent under.
    """

    decision_id: int
    since_s: float
    until_s: float
    predicted: float | None
    previous: Proposal | None = None
    in_force: Proposal | None = None
    low: float | None = None
    high: float | None = None
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A decision whose window is over, and how it went; NaN where it concerned no request."""

    watched: Watched
    attainment: float
    requests: int

    @property
    def reach(self) -> Reach | None:
        """Where the outcome lies; see `reached`."""
        return reached(self.watched.low, self.watched.high, self.attainment, self.requests)


class FollowUp:
    """Decisions waiting for their window, oldest first, and what has proven good.

    Either horizon may settle: what one takes, the other does not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: list[Watched] = []
        self._good: deque[Proposal] = deque(maxlen=KNOWN_GOOD_KEPT)

    @property
    def known_good(self) -> tuple[Proposal, ...]:
        """What was in force when a window came to what was predicted or more, newest first."""
        return tuple(self._good)

    def watch(self, watched: Watched) -> None:
        """Remember a decision until its window is over."""
        self._watched.append(watched)

    def settle(self, now_s: float, realised: Realised, final: bool = False) -> list[Settled]:
        """Decisions whose window is over by now (all of them if `final`), oldest first."""
        with self._lock:
            over = [w for w in self._watched if final or w.until_s <= now_s]
            self._watched = [w for w in self._watched if w not in over]
        settled = []
        for watched in over:
            result = realised(watched.since_s, min(watched.until_s, now_s))
            settled.append(Settled(watched, *(result or (math.nan, 0))))
            self._judge(settled[-1])
        return settled

    def _judge(self, settled: Settled) -> None:
        """Put what came to its prediction first among the known good; drop what did not."""
        in_force = settled.watched.in_force
        if in_force is None or settled.reach is None:
            return
        others = [p for p in self._good if not _same(p, in_force)]
        self._good = deque(others, KNOWN_GOOD_KEPT)
        if settled.reach != "under":
            self._good.appendleft(in_force)


def reached(low: float | None, high: float | None, realised: float, requests: int) -> Reach | None:
    """Where an outcome lies against its predicted interval.

    None where nothing was predicted, and below 30 requests, which say nothing. The share
    of `inside` among the others is the interval's coverage.
    """
    if low is None or high is None or requests < ROLLBACK_REQUESTS:
        return None
    return "under" if realised < low else "above" if realised > high else "inside"


def rollback_of(settled: Settled, known_good: Iterable[Proposal] = ()) -> Proposal | None:
    """The policy to go back to, or None if the switch may stay.

    A switch is rolled back when at least 30 requests show an attainment under the
    interval that was predicted for it: to the newest known good with its parameters that
    is not the switch's own choice, else to what the switch replaced.
    """
    watched = settled.watched
    if watched.previous is None or watched.low is None or settled.reach != "under":
        return None
    failed = watched.in_force
    good = (p for p in known_good if failed is None or not _same(p, failed))
    back = next(good, watched.previous)
    return Proposal(
        source="rules",
        policy=back.policy,
        params=dict(back.params),
        limits=dict(back.limits),
        reason=f"{ROLLBACK} realised {settled.attainment:.2f}, "
        f"predicted at least {watched.low:.2f}",
    )


def _same(one: Proposal, other: Proposal) -> bool:
    return key_of(one.policy, one.params, one.limits) == key_of(
        other.policy, other.params, other.limits
    )
