"""What came in and what left in the last seconds? Running sums, so that a tick costs little.

Every event is added once and taken out once; reading costs O(tenants). Used by `Feedback`.
"""

import math
from collections import Counter, deque
from dataclasses import dataclass, field

from hmas_agents.feedback.windows import MAX_EVENTS
from serving.contracts import Arrival, Outcome

# Judged and missed: of first tokens, and of the pace of further ones.
Marks = tuple[int, int, int, int]
_UNSERVED = ("aborted", "rejected")


@dataclass(slots=True)
class ShortWindow:
    """Sums over the arrivals and outcomes of the last `span_s` seconds.

    Attributes:
        prompt_tokens: that arrived and were not in the KV cache.
        by_tenant: the same for each tenant that sent something.
        requests_by_tenant: how many requests those were.
        met_by_class: outcomes that met all their targets.
        tpot_targets: requests that arrived, by TPOT target in seconds to two digits; inf: none.
    """

    span_s: float
    max_events: int = MAX_EVENTS
    prompt_tokens: int = 0
    by_tenant: Counter[str] = field(default_factory=Counter)
    requests_by_tenant: Counter[str] = field(default_factory=Counter)
    met_by_class: Counter[str] = field(default_factory=Counter)
    tpot_targets: Counter[float] = field(default_factory=Counter)
    _arrivals: deque[tuple[float, str, int, float]] = field(default_factory=deque)
    _outcomes: deque[tuple[float, Marks, str, bool]] = field(default_factory=deque)
    _marks: Marks = (0, 0, 0, 0)

    def arrive(self, arrival: Arrival) -> None:
        """Count an arrival."""
        tau_s = _two_digits_s(arrival.slo.tpot_ms)
        tokens = arrival.prompt_tokens - arrival.cached_tokens
        self._arrivals.append((arrival.arrival_s, arrival.tenant, tokens, tau_s))
        self.tpot_targets[tau_s] += 1
        self.prompt_tokens += tokens
        self.by_tenant[arrival.tenant] += tokens
        self.requests_by_tenant[arrival.tenant] += 1
        if len(self._arrivals) > self.max_events:
            self._drop_arrival()

    def leave(self, outcome: Outcome) -> None:
        """Count an outcome against its targets."""
        marks, group, met = _marks_of(outcome), outcome.slo_class, outcome.met
        self._outcomes.append((outcome.finished_s, marks, group, met))
        self._count(marks, group, met, 1)
        if len(self._outcomes) > self.max_events:
            self._drop_outcome()

    def expire(self, now_s: float) -> None:
        """Take out what is older than the span."""
        since_s = now_s - self.span_s
        while self._arrivals and self._arrivals[0][0] < since_s:
            self._drop_arrival()
        while self._outcomes and self._outcomes[0][0] < since_s:
            self._drop_outcome()

    def ttft_miss_share(self) -> float | None:
        """Share of outcomes with a TTFT target that missed it; not served is missed."""
        judged, missed, _, _ = self._marks
        return missed / judged if judged else None

    def tpot_miss_share(self) -> float | None:
        """Share of outcomes with a TPOT target and a second token that missed it."""
        _, _, judged, missed = self._marks
        return missed / judged if judged else None

    def offered_shares(self) -> dict[str, float]:
        """Each tenant's share of the prompt tokens to compute, in order of name."""
        total = max(1, self.prompt_tokens)
        return {tenant: tokens / total for tenant, tokens in sorted(self.by_tenant.items())}

    def requests(self) -> dict[str, int]:
        """How many requests each tenant sent, in order of name."""
        return dict(sorted(self.requests_by_tenant.items()))

    def tpot_target_shares(self) -> tuple[tuple[float, float], ...]:
        """The TPOT targets (s) of what came, tightest first, and the share that has each."""
        total = self.tpot_targets.total()
        return tuple(
            (tau_s, count / total)
            for tau_s, count in sorted(self.tpot_targets.items())
            if tau_s < math.inf
        )

    def _drop_arrival(self) -> None:
        _, tenant, tokens, tau_s = self._arrivals.popleft()
        self.tpot_targets[tau_s] -= 1
        if not self.tpot_targets[tau_s]:
            del self.tpot_targets[tau_s]
        self.prompt_tokens -= tokens
        self.by_tenant[tenant] -= tokens
        self.requests_by_tenant[tenant] -= 1
        if not self.requests_by_tenant[tenant]:
            del self.by_tenant[tenant], self.requests_by_tenant[tenant]

    def _drop_outcome(self) -> None:
        _, marks, group, met = self._outcomes.popleft()
        self._count(marks, group, met, -1)

    def _count(self, marks: Marks, group: str, met: bool, sign: int) -> None:
        first, late, further, slow = self._marks
        self._marks = (
            first + sign * marks[0], late + sign * marks[1],
            further + sign * marks[2], slow + sign * marks[3],
        )  # fmt: skip
        if met:
            self.met_by_class[group] += sign
            if not self.met_by_class[group]:
                del self.met_by_class[group]


def _two_digits_s(tpot_ms: float | None) -> float:
    # Clients may name targets of their own: a few dozen a decade, not one a request.
    return math.inf if tpot_ms is None else float(f"{tpot_ms / 1e3:.2g}")


def _marks_of(outcome: Outcome) -> Marks:
    slo, ttft_s, tpot_s = outcome.slo, outcome.ttft_s, outcome.tpot_s
    first = slo.ttft_ms is not None and (outcome.finish not in _UNSERVED or bool(ttft_s))
    late = first and (ttft_s is None or ttft_s * 1e3 > (slo.ttft_ms or 0.0))
    further = slo.tpot_ms is not None and tpot_s is not None
    slow = further and (tpot_s or 0.0) * 1e3 > (slo.tpot_ms or 0.0)
    return int(first), int(late), int(further), int(slow)
