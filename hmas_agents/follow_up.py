"""What came of a decision? Waits for the following window and judges it.

Called by the long horizon: realised attainment goes back to the ledger and into the
twin's error, a switch that disappoints is rolled back to what was last known good, and the
policy agent is told what came of its proposals.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from hmas_agents.choice import Key, key_of
from hmas_agents.guardrails import OK
from hmas_agents.records import DecisionRecord, Proposal
from hmas_agents.states import PastProposal

ROLLBACK_REQUESTS = 30
KNOWN_GOOD_KEPT = 8
PROPOSALS_KEPT = 3
ADOPTED = "adopted"
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
    """Decisions waiting for their window, oldest first, what has proven good, and proposals.

    Either horizon may settle: what one takes, the other does not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: list[Watched] = []
        self._good: deque[Proposal] = deque(maxlen=KNOWN_GOOD_KEPT)
        self._proposed: dict[Key, PastProposal] = {}  # oldest first

    @property
    def known_good(self) -> tuple[Proposal, ...]:
        """What was in force when a window came to what was predicted or more, newest first."""
        return tuple(self._good)

    @property
    def proposed(self) -> tuple[PastProposal, ...]:
        """What the policy agent proposed last, each setting once, newest first."""
        return tuple(reversed(self._proposed.values()))

    def remember(self, record: DecisionRecord) -> None:
        """Keep what the policy agent proposed, the best of a decision as the newest."""
        for proposal in [p for p in record.proposals if p.source == "model"][::-1]:
            key = key_of(proposal.policy, proposal.params)
            with self._lock:
                self._proposed.pop(key, None)
                self._proposed[key] = _past(proposal, record)
                for oldest in list(self._proposed)[:-PROPOSALS_KEPT]:
                    del self._proposed[oldest]

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
            self._see(settled[-1])
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

    def _see(self, settled: Settled) -> None:
        """Write into the proposal that was adopted then how it went."""
        watched = settled.watched
        if watched.predicted is None or settled.requests < ROLLBACK_REQUESTS:
            return
        with self._lock:
            for key, past in self._proposed.items():
                gain, is_it = past.predicted_gain, past.at_s == watched.since_s
                if is_it and past.outcome == ADOPTED and gain is not None:
                    seen = gain + settled.attainment - watched.predicted
                    self._proposed[key] = replace(past, seen_gain=seen)


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


def _past(proposal: Proposal, record: DecisionRecord) -> PastProposal:
    incumbent = next((p.predicted for p in record.proposals if p.source == "incumbent"), None)
    against, gain = proposal.terms.get("against", incumbent), None
    if proposal.predicted is not None and against is not None:
        gain = proposal.predicted - against
    outcome = _outcome(proposal, record.chosen)
    return PastProposal(record.at_s, proposal.policy, dict(proposal.params), outcome, gain)


def _outcome(proposal: Proposal, chosen: dict[str, Any]) -> str:
    """Adopted, or why not, in a few words that hold no figure and no name."""
    key = key_of(chosen["policy"], chosen["params"], chosen["limits"])
    is_chosen = key_of(proposal.policy, proposal.params, proposal.limits) == key
    if is_chosen and chosen["applied"]:
        return ADOPTED
    if proposal.verdict != OK:
        return proposal.verdict.partition(":")[0]
    if is_chosen:
        return "not applied"
    if proposal.gain is None or proposal.margin is None:
        return "not predicted"
    return "others gained more" if proposal.gain > proposal.margin else "gained too little"


def _same(one: Proposal, other: Proposal) -> bool:
    return key_of(one.policy, one.params, one.limits) == key_of(
        other.policy, other.params, other.limits
    )
