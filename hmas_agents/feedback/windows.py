"""What came in and what left, lately? Bounded windows over the engine's journal.

Every event costs amortised O(1): it is appended once and dropped once, by age or,
under a flood, by number. Used by `Feedback` only.
"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hmas_agents.lateness import first_token_is_late
from serving.contracts import SLO, Arrival, Outcome

MAX_EVENTS = 50_000
MAX_GROUPS = 256

T = TypeVar("T")


@dataclass(slots=True)
class TimeWindow(Generic[T]):
    """Timed values, oldest first, at most `span_s` old and at most `max_events` many."""

    span_s: float
    max_events: int = MAX_EVENTS
    events: deque[tuple[float, T]] = field(default_factory=deque)

    def add(self, at_s: float, value: T) -> None:
        """Append one value; the oldest gives way when the window is full."""
        self.events.append((at_s, value))
        if len(self.events) > self.max_events:
            self.events.popleft()

    def expire(self, now_s: float) -> None:
        """Drop what is older than the span."""
        while self.events and self.events[0][0] < now_s - self.span_s:
            self.events.popleft()

    def since(self, from_s: float) -> list[T]:
        """Values at `from_s` or later, oldest first."""
        return [value for at_s, value in self.events if at_s >= from_s]


@dataclass(slots=True)
class Offered:
    """One offered request; `outcome` is None while it is inside the engine."""

    arrival_s: float
    tenant: str
    slo_class: str
    slo: SLO
    prompt_tokens: int
    max_tokens: int
    priority: int
    cached_at_arrival: int = 0
    prefix: tuple[int, ...] = ()
    outcome: Outcome | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the KV cache held: at admission, or before it at arrival."""
        return self.cached_at_arrival if self.outcome is None else self.outcome.cached_tokens

    @property
    def deadline_s(self) -> float:
        """When a request without a first token (or end) has missed its SLO; inf without target."""
        targets = [t for t in (self.slo.ttft_ms, self.slo.e2e_ms) if t is not None]
        return self.arrival_s + min(targets) / 1e3 if targets else math.inf

    def was_undecided(self, at_s: float) -> bool:
        """Whether it was inside at `at_s`, and its first token not late by then.

        When the first token of a request still inside came is not known: it counts as in time
        while its deadline is not over.
        """
        outcome = self.outcome
        if outcome is None:
            first_s = None
        elif outcome.finished_s <= at_s:
            return False
        else:
            first_s = None if outcome.ttft_s is None else self.arrival_s + outcome.ttft_s
        return not first_token_is_late(self.slo, self.arrival_s, first_s, at_s)


@dataclass(slots=True)
class OfferedWindow:
    """Requests by id in order of arrival, joined with their outcomes."""

    span_s: float
    max_events: int = MAX_EVENTS
    # In a plain dict, finding the oldest walks over all that were taken out before it.
    by_id: OrderedDict[str, Offered] = field(default_factory=OrderedDict)

    def arrive(self, arrival: Arrival) -> bool:
        """Note an arrival. False when it was known already (a page read twice)."""
        known = self.by_id.get(arrival.request_id)
        if known is not None and known.arrival_s == arrival.arrival_s:
            return False
        # A client may use an id again: the new request moves to the end.
        self.by_id.pop(arrival.request_id, None)
        self.by_id[arrival.request_id] = Offered(
            arrival.arrival_s,
            arrival.tenant,
            arrival.slo_class,
            arrival.slo,
            arrival.prompt_tokens,
            arrival.max_tokens,
            arrival.priority,
            arrival.cached_tokens,
            arrival.prefix,
        )
        self._drop_oldest()
        return True

    def leave(self, outcome: Outcome) -> bool:
        """Note an outcome. False when it was known already.

        An outcome whose arrival was overwritten in the journal stands for both.
        """
        known = self.by_id.get(outcome.request_id)
        if known is None:
            known = self.by_id[outcome.request_id] = Offered(
                outcome.arrival_s,
                outcome.tenant,
                outcome.slo_class,
                outcome.slo,
                outcome.prompt_tokens,
                max_tokens=max(1, outcome.output_tokens),
                priority=0,
            )
            self._drop_oldest()
        elif known.outcome is not None:
            return False
        known.outcome = outcome
        return True

    def expire(self, now_s: float) -> None:
        """Drop requests that arrived longer ago than the span."""
        while self.by_id:
            oldest = next(iter(self.by_id.values()))
            if oldest.arrival_s >= now_s - self.span_s:
                return
            self.by_id.popitem(last=False)

    def between(self, since_s: float, until_s: float) -> list[Offered]:
        """Requests that arrived in [since, until), oldest first."""
        chosen = [o for o in self.by_id.values() if since_s <= o.arrival_s < until_s]
        return sorted(chosen, key=lambda offered: offered.arrival_s)

    def _drop_oldest(self) -> None:
        if len(self.by_id) > self.max_events:
            self.by_id.popitem(last=False)


@dataclass(slots=True)
class DecayedShare:
    """Share of successes per group, each event halving in weight every `half_life_s`.

    share = sum(w*met) / sum(w) with w = 2^(-age/half_life): an exponentially weighted
    mean that does not depend on how events fall into ticks.
    """

    half_life_s: float
    groups: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def add(self, group: str, at_s: float, met: bool) -> None:
        """Count one event; the group idle longest gives way when there are too many."""
        last_s, hits, total = self.groups.pop(group, (at_s, 0.0, 0.0))
        fade = 0.5 ** (max(0.0, at_s - last_s) / self.half_life_s)
        self.groups[group] = (max(at_s, last_s), hits * fade + met, total * fade + 1)
        if len(self.groups) > MAX_GROUPS:
            del self.groups[next(iter(self.groups))]

    def shares(self) -> dict[str, float]:
        """Group -> share of successes, in order of name."""
        return {name: hits / total for name, (_, hits, total) in sorted(self.groups.items())}
