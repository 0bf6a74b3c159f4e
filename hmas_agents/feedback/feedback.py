"""What has the engine shown so far? Fed every short tick by the graphs."""

import math

from hmas_agents.config import Config
from hmas_agents.feedback.drift import RateAlarm
from hmas_agents.feedback.drift_window import DriftWindow
from hmas_agents.feedback.long_state import build_long_state
from hmas_agents.feedback.short_state import EngineTotals, build_short_state
from hmas_agents.feedback.short_window import ShortWindow
from hmas_agents.feedback.windows import DecayedShare, Offered, OfferedWindow, TimeWindow
from hmas_agents.situation import Served
from hmas_agents.states import LongState, ShortState
from serving.contracts import JournalPage, Outcome, Snapshot, TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS

# Five bins of the slowest dispersion index.
MIN_RETENTION_S = 300.0


class Feedback:
    """Windows over what was observed, and the states read from them.

    Memory is bounded: events by age and by number, groups by number. Nothing reads a
    clock; "now" is the time of the last snapshot. The controller's own requests count as load
    and as what the twin replays, and for nothing else.
    """

    def __init__(self, config: Config) -> None:
        self._config = config.feedback
        self._own = frozenset(config.own_tenants)
        retention_s = max(
            MIN_RETENTION_S,
            config.feedback.long_window_s,
            config.twin.window_s,
            3 * config.control.long_tick_s,
        )
        self._offered = OfferedWindow(retention_s)
        self._outcomes: TimeWindow[Outcome] = TimeWindow(retention_s)
        self._totals: TimeWindow[EngineTotals] = TimeWindow(config.feedback.short_window_s)
        self._recent = ShortWindow(config.feedback.short_window_s)
        self._drift = DriftWindow()
        self._by_class = DecayedShare(config.feedback.ewma_half_life_s)
        self._by_tenant = DecayedShare(config.feedback.ewma_half_life_s)
        self._rate = RateAlarm(
            config.feedback.short_window_s,
            config.feedback.cusum_threshold,
            config.feedback.cusum_drift,
        )
        self._snapshot: Snapshot | None = None
        self._first_s = math.inf

    def observe(self, snapshot: Snapshot, page: JournalPage) -> None:
        """Take in one snapshot and the journal events since the last.

        Events read twice count once; events with impossible times are ignored.
        """
        isfinite, first_s = math.isfinite, self._first_s
        for arrival in page.arrivals:
            at_s = arrival.arrival_s
            if isfinite(at_s) and self._offered.arrive(arrival):
                first_s = min(first_s, at_s)
                if arrival.tenant in self._own:
                    continue
                self._rate.arrive(at_s)
                self._recent.arrive(arrival)
                self._drift.add(at_s, arrival.prompt_tokens, arrival.tenant, arrival.slo_class)
        for outcome in page.outcomes:
            at_s = outcome.finished_s
            times_are_sane = isfinite(outcome.arrival_s) and isfinite(at_s)
            if times_are_sane and self._offered.leave(outcome):
                self._outcomes.add(at_s, outcome)
                first_s = min(first_s, at_s)
                if outcome.tenant in self._own:
                    continue
                self._recent.leave(outcome)
                if not outcome.withdrawn:
                    self._by_class.add(outcome.slo_class, at_s, outcome.met)
                    self._by_tenant.add(outcome.tenant, at_s, outcome.met)
        self._first_s = first_s
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
        self._recent.expire(snapshot.now_s)
        window_s = self._window_s(snapshot)
        self._drift.advance(snapshot.now_s - window_s, snapshot.now_s - window_s / 4)

    def short_state(self) -> ShortState:
        """The last `feedback.short_window_s` seconds. Needs an observation first."""
        return build_short_state(
            self._seen(),
            totals=[totals for _, totals in self._totals.events],
            recent=self._recent,
            by_class=self._by_class.shares(),
            by_tenant=self._by_tenant.shares(),
        )

    def alarms(self) -> tuple[str, ...]:
        """The drift alarms in force, at a cost that does not grow with the window."""
        lengths, lengths_shifted = self._drift.lengths()
        mix, mix_shifted = self._drift.mix()
        fired = {
            self._rate.fired: bool(self._rate.fired),
            "lengths": lengths_shifted and lengths > self._config.psi_alarm,
            "mix": mix_shifted and mix > self._config.psi_alarm,
        }
        return tuple(name for name, holds in fired.items() if holds)

    def long_state(self) -> LongState:
        """The last `feedback.long_window_s` seconds. Needs an observation first.

        Alarms are levels, not edges: one stays in the state while it holds (a rate alarm
        for one short window), so act on names that were not there a tick before.
        """
        snapshot = self._seen()
        window_s = self._window_s(snapshot)
        since_s = snapshot.now_s - window_s
        offered = self._offered.between(since_s, math.inf)
        return build_long_state(
            snapshot,
            window_s=window_s,
            offered=offered,
            outcomes=self._outcomes.since(since_s),
            weights=self._miss_weights(offered),
            arrivals_s=[
                o.arrival_s
                for o in self._offered.between(-math.inf, math.inf)
                if o.tenant not in self._own
            ],
            own=self._own,
            observed_since_s=max(self._first_s, snapshot.now_s - self._offered.span_s),
            alarms=self.alarms(),
            psi_lengths=self._drift.lengths()[0],
            psi_mix=self._drift.mix()[0],
        )

    def realised(self, since_s: float, until_s: float) -> tuple[float, int] | None:
        """Attainment and number of the requests that [since, until) concerned.

        These are the arrivals up to `until_s`, and the requests inside at `since_s` whose first
        token was not late by then. Only decided ones count: requests that left, and requests
        inside that have missed a target already. None when there are none.
        """
        concerned = [
            o
            for o in self._offered.between(-math.inf, until_s)
            if o.tenant not in self._own
            and (o.arrival_s >= since_s or o.was_undecided(since_s))
        ]
        weights = self._miss_weights(concerned)
        left = [o.outcome for o in concerned if o.outcome and not o.outcome.withdrawn]
        decided = len(left) + math.fsum(weights)
        if decided <= 0:
            return None
        return sum(outcome.met for outcome in left) / decided, round(decided)

    def recent_requests(
        self, window_s: float, max_requests: int
    ) -> tuple[tuple[TraceRequest, ...], float]:
        """The arrivals of the last window as a trace, oldest first, the first at 0, and its span.

        When there are more than `max_requests`, the newest: thinning would change the load.
        Output lengths are the true ones of requests that left, else 1: not known yet.
        """
        since_s = self._seen().now_s - window_s
        offered = self._offered.between(since_s, math.inf)[-max_requests:]
        window = tuple(
            TraceRequest(
                arrival_s=o.arrival_s - offered[0].arrival_s,
                prompt_tokens=max(1, o.prompt_tokens),
                output_tokens=max(1, o.outcome.output_tokens) if o.outcome else 1,
                tenant=o.tenant,
                slo_class=o.slo_class,
                priority=o.priority,
                max_tokens=o.max_tokens or None,
                slo=o.slo,
                cached_tokens=o.cached_tokens,
                # What was cached is all that it is known to share: the rest is its own.
                prefix=o.prefix[: o.cached_tokens // PREFIX_BLOCK_TOKENS],
            )
            for o in offered
        )
        return window, self._seen().now_s - offered[0].arrival_s if offered else 0.0

    def rate(self, tenant: str | None, slo_class: str | None, window_s: float) -> float:
        """Arrivals per second of a tenant and a class (None: of all) over the last seconds."""
        now_s = self._seen().now_s
        since_s = max(now_s - window_s, self._first_s)
        offered = self._offered.between(since_s, math.inf)
        wanted = [
            o for o in offered
            if tenant in {None, o.tenant} and slo_class in {None, o.slo_class}
        ]  # fmt: skip
        return len(wanted) / (now_s - since_s) if now_s > since_s else 0.0

    def served(self, most: int) -> tuple[Served, ...]:
        """The newest answers that ended as they should, oldest first, at most so many."""
        ended = [
            Served(o.tenant, max(1, o.prompt_tokens), o.max_tokens, o.outcome.output_tokens)
            for o in self._offered.by_id.values()
            if o.outcome is not None and o.outcome.finish in {"stop", "length"}
        ]
        return tuple(ended[-most:])

    def _window_s(self, snapshot: Snapshot) -> float:
        return min(self._config.long_window_s, max(0.0, snapshot.now_s - self._first_s))

    def _seen(self) -> Snapshot:
        if self._snapshot is None:
            raise RuntimeError("Feedback.observe has not been called yet")
        return self._snapshot

    def _miss_weights(self, offered: list[Offered]) -> list[float]:
        """For each request, how much of it is already a miss although it is still inside.

        The journal does not say which requests still wait for a first token: a request past its
        deadline may be decoding, in time. The engine says how many waiting requests are past
        saving. This number is spread evenly over the requests inside that are past their deadline
        and not older than the oldest waiting one.
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
