"""What has the engine shown so far? One observer, fed every short tick by the graphs."""

import math
from collections import defaultdict

from hmas_agents.config import Config
from hmas_agents.feedback.drift import RateAlarm
from hmas_agents.feedback.long_state import build_long_state
from hmas_agents.feedback.short_state import EngineTotals, build_short_state
from hmas_agents.feedback.windows import DecayedShare, Offered, OfferedWindow, TimeWindow
from hmas_agents.states import LongState, ShortState
from serving.contracts import JournalPage, Outcome, Snapshot, TraceRequest

# Five bins of the slowest dispersion index.
MIN_RETENTION_S = 300.0
DEFAULT_OUTPUT_TOKENS = 128
GOLDEN_RATIO = 0.6180339887498949


class Feedback:
    """Windows over what was observed, and the states read from them.

    Memory is bounded: events by age and by number, groups by number. Nothing reads a
    clock; "now" is the time of the last snapshot.
    """

    def __init__(self, config: Config) -> None:
        self._config = config.feedback
        retention_s = max(
            MIN_RETENTION_S,
            config.feedback.long_window_s,
            config.twin.window_s,
            3 * config.control.long_tick_s,
        )
        self._offered = OfferedWindow(retention_s)
        self._outcomes: TimeWindow[Outcome] = TimeWindow(retention_s)
        self._totals: TimeWindow[EngineTotals] = TimeWindow(config.feedback.short_window_s)
        self._by_class = DecayedShare(config.feedback.ewma_half_life_s)
        self._by_tenant = DecayedShare(config.feedback.ewma_half_life_s)
        self._rate = RateAlarm(
            config.feedback.short_window_s,
            config.feedback.cusum_threshold,
            config.feedback.cusum_drift,
        )
        self._snapshot: Snapshot | None = None
        self._first_s = math.inf
        self.lost_events = 0

    def observe(self, snapshot: Snapshot, page: JournalPage) -> None:
        """Take in one snapshot and the journal events since the last.

        Events read twice count once; events with impossible times are ignored; overwritten
        ones are only counted, in `lost_events`.
        """
        self.lost_events += page.lost
        for arrival in page.arrivals:
            if math.isfinite(arrival.arrival_s) and self._offered.arrive(arrival):
                self._rate.arrive(arrival.arrival_s)
                self._first_s = min(self._first_s, arrival.arrival_s)
        for outcome in page.outcomes:
            times_are_sane = math.isfinite(outcome.arrival_s) and math.isfinite(outcome.finished_s)
            if times_are_sane and self._offered.leave(outcome):
                self._first_s = min(self._first_s, outcome.finished_s)
                self._outcomes.add(outcome.finished_s, outcome)
                self._by_class.add(outcome.slo_class, outcome.finished_s, outcome.met)
                self._by_tenant.add(outcome.tenant, outcome.finished_s, outcome.met)
        if not math.isfinite(snapshot.now_s):
            return
        totals = EngineTotals.of(snapshot)
        if self._totals.events and totals.is_before(self._totals.events[-1][1]):
            self._totals.events.clear()  # the engine restarted and counts from zero
        self._totals.add(snapshot.now_s, totals)
        self._rate.advance(snapshot.now_s)
        self._first_s = min(self._first_s, snapshot.now_s)
        self._snapshot = snapshot
        self._offered.expire(snapshot.now_s)
        self._outcomes.expire(snapshot.now_s)
        self._totals.expire(snapshot.now_s)

    def short_state(self) -> ShortState:
        """The last `feedback.short_window_s` seconds. Needs an observation first."""
        snapshot = self._seen()
        since_s = snapshot.now_s - self._config.short_window_s
        return build_short_state(
            snapshot,
            totals=[totals for _, totals in self._totals.events],
            outcomes=self._outcomes.since(since_s),
            prompt_tokens=sum(o.prompt_tokens for o in self._offered.between(since_s, math.inf)),
            by_class=self._by_class.shares(),
            by_tenant=self._by_tenant.shares(),
        )

    def long_state(self) -> LongState:
        """The last `feedback.long_window_s` seconds. Needs an observation first.

        Alarms are levels, not edges: one stays in the state while it holds (a rate alarm
        for one short window), so act on names that were not there a tick before.
        """
        snapshot = self._seen()
        window_s = min(self._config.long_window_s, max(0.0, snapshot.now_s - self._first_s))
        since_s = snapshot.now_s - window_s
        offered = self._offered.between(since_s, math.inf)
        return build_long_state(
            snapshot,
            window_s=window_s,
            offered=offered,
            outcomes=self._outcomes.since(since_s),
            weights=self._miss_weights(offered),
            arrivals_s=[o.arrival_s for o in self._offered.between(-math.inf, math.inf)],
            observed_since_s=max(self._first_s, snapshot.now_s - self._offered.span_s),
            rate_alarm=self._rate.fired,
            psi_alarm=self._config.psi_alarm,
        )

    def realised(self, since_s: float, until_s: float) -> tuple[float, int] | None:
        """Attainment and number of the requests that arrived in [since, until) and are decided.

        Decided are those that left, and of those inside the ones already lost. None when
        there are none.
        """
        offered = self._offered.between(since_s, until_s)
        weights = self._miss_weights(offered)
        left = [o.outcome for o in offered if o.outcome is not None]
        decided = len(left) + math.fsum(weights)
        if decided <= 0:
            return None
        return sum(outcome.met for outcome in left) / decided, round(decided)

    def recent_requests(self, window_s: float, max_requests: int) -> list[TraceRequest]:
        """The arrivals of the last window as a trace, oldest first, the first at 0.

        When there are more than `max_requests`, the newest: thinning would change the load.
        Output lengths are the true ones of requests that left; the others get one that
        their tenant has shown before (else anyone, else 128), spread evenly over what was
        shown by index, so that the same observations give the same trace.
        """
        if self._snapshot is None:
            return []
        since_s = self._snapshot.now_s - window_s
        offered = self._offered.between(since_s, math.inf)[-max_requests:]
        seen: dict[str, list[int]] = defaultdict(list)
        for _, outcome in self._outcomes.events:
            if outcome.finish in {"stop", "length"}:
                seen[outcome.tenant].append(outcome.output_tokens)
        everyone = sorted(length for lengths in seen.values() for length in lengths)
        by_tenant = {tenant: sorted(lengths) for tenant, lengths in seen.items()}
        return [
            TraceRequest(
                arrival_s=o.arrival_s - offered[0].arrival_s,
                prompt_tokens=max(1, o.prompt_tokens),
                output_tokens=_output_tokens(o, index, by_tenant.get(o.tenant) or everyone),
                tenant=o.tenant,
                slo_class=o.slo_class,
                priority=o.priority,
            )
            for index, o in enumerate(offered)
        ]

    def _seen(self) -> Snapshot:
        if self._snapshot is None:
            raise RuntimeError("Feedback.observe has not been called yet")
        return self._snapshot

    def _miss_weights(self, offered: list[Offered]) -> list[float]:
        """For each request, how much of it is already a miss although it is still inside.

        The journal does not say who still waits for a first token; a request past its
        deadline may well be decoding, in time. The engine says how many waiting ones are
        past saving: that number is spread evenly over all inside that are past theirs and
        not older than the oldest waiting one.
        """
        snapshot = self._seen()
        queue = snapshot.queue
        oldest_s = snapshot.now_s - queue.oldest_wait_s - 1e-6
        late = {
            id(o)
            for o in self._offered.by_id.values()
            if o.outcome is None and o.arrival_s >= oldest_s and o.deadline_s < snapshot.now_s
        }
        weight = min(1.0, max(0, queue.hopeless) / len(late)) if late else 0.0
        return [weight if id(o) in late else 0.0 for o in offered]


def _output_tokens(offered: Offered, index: int, seen: list[int]) -> int:
    if offered.outcome is not None:
        return max(1, offered.outcome.output_tokens)
    drawn = DEFAULT_OUTPUT_TOKENS
    if seen:
        drawn = seen[int((index * GOLDEN_RATIO) % 1.0 * len(seen))]
    return max(1, min(drawn, offered.max_tokens))
