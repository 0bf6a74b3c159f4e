"""Which of the waiting requests stands where? The order behind the waiting queue.

Keys do not change while a request waits, except at events: it becomes hopeless, it has waited too
long, its tenant's bucket covers it again. So: a heap on the key per tenant, one heap of events, and
entries replaced lazily. A request's facts don't depend on the policy, so a switch only recomputes
keys: O(n), between steps. A new load, other costs, newly cached prefixes re-key a slice per step.
"""

import gc
import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from types import MappingProxyType
from typing import Any

from serving.lanes import Lane, Lanes
from serving.policies import POLICIES, Policy, PolicyContext, RequestView, complete_params
from serving.policies.base import Key, comparable
from serving.policies.priority import STOCK_PRIORITY
from serving.rules import COUNTERS
from serving.standing import (
    DEMOTED,
    FIRST,
    HOPELESS,
    NORMAL,
    PARKED,
    STARVED,
    UNCOVERED,
    Entry,
    hopeless_s,
    standings,
)
from serving.triage import Triage

_COMPACT_AT = 64
_SLICE = 8  # entries that a step re-keys while keys are stale
_CACHE_SLICE = 2  # looking up cached prefixes is dearer: it walks over the blocks of a hit
_COST_STEP = 0.25  # a token's cost that moves by so much calls for new keys and standings


class Order:
    """Owed to a floor, starved or resumed first, hopeless last, else by key.

    Args:
        view_of: gives the policies' view of a request.
        max_wait_s: a request that has waited longer outranks every policy.
        on_policy_error: called with the failing policy's name and the exception,
            after the queue has fallen back to first come, first served.
        lanes: the tenants' work, weights, floors and buckets.
        on_deprioritised: called with a request, its standing and the time when others go before it.
    """

    def __init__(
        self,
        view_of: Callable[[Any], RequestView],
        max_wait_s: float,
        on_policy_error: Callable[[str, Exception], None],
        lanes: Lanes | None = None,
        on_deprioritised: Callable[[Any, int, float], None] = lambda *_: None,
    ) -> None:
        self._view_of = view_of
        self._on_policy_error, self._on_deprioritised = on_policy_error, on_deprioritised
        self.lanes = Lanes({}, {}, 64) if lanes is None else lanes
        self._standings = standings()
        self._triage: Triage | None = None
        self._max_wait_s, self.buckets = max_wait_s, False
        self._demotes: bool | None = None
        self._entries: dict[str, Entry] = {}
        self._events: list[tuple[float, int, Entry]] = []
        self._heads: list[Any] = []  # heads of lanes, best first, and some that were
        self._items = self._last = 0
        self._first = self._first_then = 0  # now, and when a request was taken in this step
        self._changes = self._lap_changes = 0  # of load and costs, and when this lap began
        self._lap: Iterator[Entry] = iter(())  # entries that are to be re-keyed
        self._rotation: Iterator[Entry] = iter(())  # whose cached prefix is looked up next
        self._popped: dict[str, Entry] = {}  # taken in this step
        self._loading: dict[str, Entry] = {}  # taken, but not started: remote KV comes first
        self._looked_up = ""  # the head whose cached prefix was looked up last
        self._owed = False  # whether the last pick was owed to a floor
        self._choice: Lane | None = None  # the last pick, as long as it holds
        self._now_s = -math.inf
        self._judged_rate = 0.0  # seconds per prompt token that standings go by
        self.policy: Policy = POLICIES["fcfs"]
        self.context = PolicyContext(prefill_s_per_token=0.0, load=0.0, params={})
        self.backlog_tokens = 0  # prompt tokens of requests that can still meet their SLO
        self.counts = dict.fromkeys(COUNTERS, 0)  # step control counts here, too

    def set_policy(
        self,
        name: str,
        params: dict[str, float],
        prefill_s_per_token: float,
        decode_s_per_token: float = 0.0,
        *,
        demote_hopeless: bool | None = None,
        buckets: bool = False,
        triage: bool = False,
        as_stock: bool = False,
    ) -> None:
        """Order by other rules, `as_stock` by vLLM's alone. O(n); ValueError for bad parameters."""
        complete, load = complete_params(name, params), self.context.load
        self.context = PolicyContext(prefill_s_per_token, load, complete, decode_s_per_token)
        self._demotes, self.buckets = demote_hopeless, buckets
        if not triage:
            self._triage = None
        elif self._triage is None:
            for entry in self._entries.values():  # an earlier triage may have parked them
                entry.facts &= ~PARKED
            self._triage = Triage(self._entries.values())
        self._order_by(STOCK_PRIORITY if as_stock and name == "priority" else POLICIES[name])
        self._follow_rate()

    def set_load(
        self, load: float, prefill_s_per_token: float, decode_s_per_token: float = 0.0
    ) -> None:
        """Take over load and costs; if keys depend on a change, they follow in the next steps."""
        old, policy = self.context, self.policy
        stale = policy.follows_load and load != old.load
        if policy.needs_lengths:
            stale |= abs(decode_s_per_token - old.decode_s_per_token) > (
                _COST_STEP * old.decode_s_per_token
            )
        if policy.needs_lengths and not stale:  # new keys must compare with those there are
            prefill_s_per_token, decode_s_per_token = (
                old.prefill_s_per_token, old.decode_s_per_token
            )  # fmt: skip
        self.context = PolicyContext(prefill_s_per_token, load, old.params, decode_s_per_token)
        self._changes += stale
        self._follow_rate()

    def _follow_rate(self) -> None:
        rate = self.context.prefill_s_per_token
        if abs(rate - self._judged_rate) > _COST_STEP * self._judged_rate:
            self._judged_rate = rate
            self._changes += 1

    def advance(self, now_s: float) -> None:
        """Apply what is due, and re-key a slice if keys are stale. Amortised O(log n) per event."""
        self._now_s, self._choice = now_s, None
        while self._events and self._events[0][0] <= now_s:
            _, event, entry = heapq.heappop(self._events)
            if entry.event == event:
                before = entry.standing
                self._judge(entry)
                if self._standings[entry.facts] != before:
                    self._push(entry)
                self.counts["demoted"] += entry.standing == DEMOTED != before
        if self._triage is not None:
            for entry in self._triage.advance(now_s, self.context.prefill_s_per_token):
                entry.facts ^= PARKED
                self.counts["parked"] += entry.facts & PARKED > 0
                self._push(entry)
        self._rekey_some()

    def _rekey_some(self) -> None:
        # A lap goes on whatever changes meanwhile, so that every entry gets its turn.
        found = list(islice(self._lap, _SLICE))
        if not found and self._lap_changes != self._changes:
            self._lap_changes, self._lap = self._changes, iter(list(self._entries.values()))
            found = list(islice(self._lap, _SLICE))
        for entry in found:
            if entry.item:
                self._judge(entry)
                self._push(entry)

    def end_step(self, scheduled: Mapping[str, int] = MappingProxyType({})) -> None:
        """Who was taken in this step has started: what comes back later was preempted.

        One that vLLM took but did not start loads its remote KV, and starts in a later step.

        Args:
            scheduled: request id -> tokens of this step. vLLM has looked into the KV cache, and
                has asked its KV connector, so tenants are charged what is really to be computed.
        """
        taken, self._popped = {**self._loading, **self._popped}, {}
        self._loading = {}
        for name, entry in taken.items():
            request, count = entry.request, scheduled.get(name, 0)
            if request.is_finished():
                continue
            if not count:
                self._loading[name] = entry
            # vLLM computes the last token, even if all KV is loaded.
            rest = max(1, request.num_tokens - request.num_computed_tokens + count)
            if rest != entry.charged:
                self.lanes.take_back(entry.lane, entry.charged, entry.lowered)
                entry.lowered = self.lanes.admit(entry.lane, rest)
                entry.charged = rest

    def refresh_cached(self) -> None:
        """Look again at the cached prefixes of a few entries: a new head's, and all in turn."""
        if not self._entries:
            return
        head = self._pick().heap[0][4]
        new = [] if head.request.request_id == self._looked_up else [head]
        self._looked_up = head.request.request_id
        rest = min(_CACHE_SLICE, len(self._entries)) - len(new)
        if not (turn := list(islice(self._rotation, rest))):
            self._rotation = iter(list(self._entries.values()))
        for entry in (*new, *turn):
            if entry.item and (view := self._view_of(entry.request)) is not entry.view:
                tokens = view.prompt_tokens - entry.view.prompt_tokens
                self.backlog_tokens += tokens * (entry.standing != DEMOTED)
                entry.view = view
                self._judge(entry)
                self._push(entry)

    def views(self) -> Iterator[RequestView]:
        """Views of all waiting requests, in no order."""
        return (entry.view for entry in self._entries.values())

    def place_of(self, view: RequestView, now_s: float) -> tuple[int, Key]:
        """Standing and key of a request whose prefill has begun, comparable with `head_place`."""
        starved = view.attained_tokens > 0 or view.arrival_s + self._max_wait_s <= now_s
        hopeless = hopeless_s(view, self.context.prefill_s_per_token) <= now_s
        standing = self._standings[STARVED * starved + HOPELESS * hopeless]
        return standing, self._key(view, standing)

    def head_place(self) -> tuple[RequestView, tuple[int, Key]]:
        """View, standing and key of the request to serve next; IndexError when empty."""
        standing, key, _, _, entry = self._pick().heap[0]
        return entry.view, (standing, key)

    def _pick(self) -> Lane:
        """The lane to serve: owed to a floor, else the policy's choice."""
        if self._choice is not None:
            return self._choice
        best: Lane | None = None
        most = 0.0
        for lane in self.lanes.floored:
            if lane.owed > 0.0 and lane.waiting:
                spare = lane.owed - max(1, lane.heap[0][4].view.prompt_tokens)
                if spare >= most:
                    best, most = lane, spare
        if best is not None:
            self._owed, self._choice = True, best
            return best
        self._owed = False
        if not self._entries:
            raise IndexError("peek from an empty queue")
        if self.policy.shares:
            backlogged = (lane for lane in self.lanes if lane.waiting)
            best = min(backlogged, key=lambda lane: (lane.work, lane.heap[0]))
        else:
            heads = self._heads
            while (head := heads[0]) is not head[4].lane.head:
                heapq.heappop(heads)
            best = head[4].lane
        self._choice = best
        return best

    def _entry(self, request: Any, order: int) -> Entry:
        view = self._view_of(request)
        # Once tokens were sent, the TTFT deadline says nothing: resume before starting others.
        resumed = view.attained_tokens > 0 or request.num_output_tokens > 0
        return Entry(request, view, self.lanes.of(view.tenant), order, resumed)

    def _insert(self, entry: Entry, *, new: bool = True) -> None:
        self._entries[entry.request.request_id] = entry
        self.backlog_tokens += entry.view.prompt_tokens * (entry.standing != DEMOTED)
        entry.lane.waiting += 1
        self._judge(entry)
        self._push(entry)
        if new and self._triage is not None:
            self._triage.add(entry)

    def _judge(self, entry: Entry) -> None:
        """See what holds of a request now, and when that changes."""
        view, now_s, changes_s = entry.view, self._now_s, math.inf
        starved_s = view.arrival_s + self._max_wait_s
        late_s = hopeless_s(view, self.context.prefill_s_per_token)
        entry.facts = (
            STARVED * (entry.resumed or starved_s <= now_s)
            + HOPELESS * (late_s <= now_s)
            + UNCOVERED * (entry.conforms_s > now_s)
            + (entry.facts & PARKED)
        )
        for when_s in (starved_s, late_s, entry.conforms_s):
            if now_s < when_s < changes_s:
                changes_s = when_s
        entry.event = 0
        if changes_s < math.inf:
            entry.event = self._items = self._items + 1
            heapq.heappush(self._events, (changes_s, entry.event, entry))

    def _push(self, entry: Entry) -> None:
        lane = entry.lane
        key = self._key(entry.view, self._standings[entry.facts])
        # After the key: a policy that raises changes standings, and rebuilds all heaps.
        standing = self._standings[entry.facts]
        self._set_standing(entry, standing)
        item = self._items = self._items + 1
        entry.item, self._choice = item, None
        heapq.heappush(lane.heap, (standing, key, entry.order, item, entry))
        self._tidy(lane)

    def _key(self, view: RequestView, standing: int) -> Key:
        if standing == FIRST:
            return (view.arrival_s,)
        try:
            return comparable(self.policy.key(view, self.context))
        except Exception as error:  # noqa: BLE001  a policy must never break a vLLM step
            self._fall_back(error)
            return ()

    def _set_standing(self, entry: Entry, standing: int) -> None:
        if standing == entry.standing:
            return
        tokens = entry.view.prompt_tokens
        self.backlog_tokens += tokens * ((standing != DEMOTED) - (entry.standing != DEMOTED))
        entry.standing = standing
        if standing > NORMAL:
            self._on_deprioritised(entry.request, standing, self._now_s)

    def _forget(self, entry: Entry) -> None:
        entry.item, entry.event, self._choice = 0, 0, None
        entry.lane.waiting -= 1
        if entry.standing != DEMOTED:
            self.backlog_tokens -= entry.view.prompt_tokens
        self._tidy(entry.lane)

    def _tidy(self, lane: Lane) -> None:
        # The head of a lane is always a valid item; garbage is at most as much as what waits.
        heap = lane.heap
        while heap and heap[0][4].item != heap[0][3]:
            heapq.heappop(heap)
        if len(heap) > 2 * lane.waiting + _COMPACT_AT:
            lane.heap = heap = [it for it in heap if it[4].item == it[3]]
            heapq.heapify(heap)
        if not heap:
            lane.head = None
        elif heap[0] is not lane.head:
            lane.head = heap[0]
            heapq.heappush(self._heads, lane.head)
            if len(self._heads) > 2 * len(self.lanes) + _COMPACT_AT:
                self._find_heads()
        if len(self._events) > 2 * len(self._entries) + _COMPACT_AT:
            self._events = [it for it in self._events if it[2].event == it[1]]
            heapq.heapify(self._events)

    def _find_heads(self) -> None:
        for lane in self.lanes:
            lane.head = lane.heap[0] if lane.heap else None
        self._heads = [lane.head for lane in self.lanes if lane.head is not None]
        heapq.heapify(self._heads)

    def _order_by(self, policy: Policy) -> None:
        if policy.shares and not self.policy.shares:
            self.lanes.level()
        self.policy, self._choice = policy, None
        demotes = policy.demotes if self._demotes is None else self._demotes
        self._standings = standings(
            starvation_free=policy.starvation_free, demotes=demotes,
            buckets=self.buckets, triage=self._triage is not None,
        )  # fmt: skip
        try:
            with _collector_paused():  # all that is made here is kept: there is no garbage
                self._rebuild()
        except Exception as error:  # noqa: BLE001  a policy must never break a vLLM step
            self._fall_back(error)

    def _rebuild(self) -> None:
        # One pass, for 100,000 entries: what a loop costs here, everyone waits for.
        key_of, context, standing_of = self.policy.key, self.context, self._standings
        heaps: dict[Lane, list[Any]] = {lane: [] for lane in self.lanes}
        keys: list[Key] = []
        for entry in self._entries.values():
            view = entry.view
            standing = standing_of[entry.facts]
            self._set_standing(entry, standing)
            key = key_of(view, context) if standing != FIRST else (view.arrival_s,)
            keys.append(key)
            heaps[entry.lane].append((standing, key, entry.order, entry.item, entry))
        total = sum(chain.from_iterable(keys))  # checks all of them at once, if all is well
        if total != total:  # noqa: PLR0124  faster than isnan
            for key in keys:
                comparable(key)
        for lane, heap in heaps.items():
            heapq.heapify(heap)
            lane.heap = heap
        self._find_heads()

    def _fall_back(self, error: Exception) -> None:
        failed, old = self.policy.name, self.context
        self.context = PolicyContext(old.prefill_s_per_token, old.load, {}, old.decode_s_per_token)
        self._order_by(POLICIES["fcfs"])
        self._on_policy_error(failed, error)


@contextmanager
def _collector_paused() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
