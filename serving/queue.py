"""In which order do waiting requests reach the engine?

Takes the place of vLLM's waiting queue. Keys do not change while a request waits,
except at events: it becomes hopeless (demotion), it has waited too long (ceiling),
or the policy, its parameters or the load step change (all are re-keyed in O(n)).
So: one heap on the key, one heap of events, and entries replaced lazily.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

from serving.policies import POLICIES, Policy, PolicyContext, RequestView, complete_params
from serving.policies.base import Key

# FIRST: waited beyond the ceiling, or has begun to answer and was preempted.
FIRST, NORMAL, DEMOTED = -1, 0, 1
_COMPACT_AT = 64


@dataclass(slots=True, eq=False)
class _Entry:
    request: Request
    view: RequestView
    order: int
    rank: int = NORMAL
    item: int = 0  # number of its one valid heap item; 0 when it has left


class PolicyQueue(RequestQueue):
    """A waiting queue: starved or resumed first, hopeless last, else by key, then queue order.

    Args:
        view_of: gives the policies' view of a request.
        max_wait_s: a request that has waited longer outranks every policy.
        on_policy_error: called with the failing policy's name and the exception,
            after the queue has fallen back to first come, first served.
    """

    def __init__(
        self,
        view_of: Callable[[Request], RequestView],
        max_wait_s: float,
        on_policy_error: Callable[[str, Exception], None],
    ) -> None:
        self._view_of = view_of
        self._max_wait_s = max_wait_s
        self._on_policy_error = on_policy_error
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[int, Key, int, int, _Entry]] = []
        self._events: list[tuple[float, int, int, _Entry]] = []
        self._first, self._last, self._items = 0, 0, 0
        self.policy: Policy = POLICIES["fcfs"]
        self.context = PolicyContext(prefill_s_per_token=0.0, load=0.0, params={})
        self.backlog_tokens = 0  # prompt tokens of requests that can still meet their SLO

    # -- what the scheduler hook calls between steps --------------------------------

    def set_policy(self, name: str, params: dict[str, float], prefill_s_per_token: float) -> None:
        """Order by another policy from now on. O(n); raises ValueError for bad parameters."""
        complete = complete_params(name, params)
        self.policy = POLICIES[name]
        self.context = PolicyContext(prefill_s_per_token, self.context.load, complete)
        self._rebuild()

    def set_load(self, load: float, prefill_s_per_token: float) -> None:
        """Take over a new load step and cost; re-keys only if the policy's keys depend on it."""
        self.context = PolicyContext(prefill_s_per_token, load, self.context.params)
        if self.policy.follows_load:
            self._rebuild()

    def advance(self, now_s: float) -> None:
        """Apply the demotions and ceilings that are due. Amortised O(log n) per event."""
        while self._events and self._events[0][0] <= now_s:
            _, rank, item, entry = heapq.heappop(self._events)
            if entry.item != item or entry.rank == FIRST:
                continue
            self._set_rank(entry, rank)
            self._push(entry)
            if rank == DEMOTED:
                self._schedule_event(entry)

    def views(self) -> Iterator[RequestView]:
        """Views of all waiting requests, in no order."""
        return (entry.view for entry in self._entries.values())

    def key_of(self, view: RequestView) -> Key:
        """The policy's key; falls back to first come, first served if the policy is at fault."""
        try:
            return _comparable(self.policy.key(view, self.context))
        except Exception as error:  # noqa: BLE001  a policy must never break a vLLM step
            self._fall_back(error)
            return ()

    # -- vLLM's RequestQueue --------------------------------------------------------

    def add_request(self, request: Request) -> None:
        """Queue a request behind all others of equal key."""
        self._last += 1
        self._insert(request, self._last)

    def prepend_request(self, request: Request) -> None:
        """Queue a preempted or skipped request before all others of equal key."""
        self._first -= 1
        self._insert(request, self._first)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Prepend one after the other, so the last one ends up in front."""
        for request in requests:
            self.prepend_request(request)

    def peek_request(self) -> Request:
        """The request to serve next; IndexError when empty."""
        while self._heap:
            item, entry = self._heap[0][3:]
            if entry.item == item:
                return entry.request
            heapq.heappop(self._heap)
        raise IndexError("peek from an empty queue")

    def pop_request(self) -> Request:
        """Remove and return the request to serve next; IndexError when empty."""
        request = self.peek_request()
        heapq.heappop(self._heap)
        self._forget(self._entries.pop(request.request_id))
        self._compact()
        return request

    def remove_request(self, request: Request) -> None:
        """Remove a request wherever it stands; ValueError when it is not queued."""
        entry = self._entries.pop(request.request_id, None)
        if entry is None:
            raise ValueError(f"request {request.request_id} is not in the waiting queue")
        self._forget(entry)
        self._compact()

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Remove those of `requests` that are queued."""
        for request in requests:
            if request.request_id in self._entries:
                self.remove_request(request)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request: Any) -> bool:
        return request.request_id in self._entries

    def __iter__(self) -> Iterator[Request]:
        valid = [it for it in self._heap if it[4].item == it[3]]
        return iter([it[4].request for it in sorted(valid, key=lambda it: it[:4])])

    # -- inside ---------------------------------------------------------------------

    def _insert(self, request: Request, order: int) -> None:
        entry = _Entry(request, self._view_of(request), order, self._first_rank(request))
        self._entries[request.request_id] = entry
        self.backlog_tokens += entry.view.prompt_tokens
        self._push(entry)
        self._schedule_event(entry)

    def _push(self, entry: _Entry) -> None:
        # The key first: a policy that raises rebuilds the heap with this entry in it.
        key = self._key(entry)
        self._items += 1
        entry.item = self._items
        heapq.heappush(self._heap, (entry.rank, key, entry.order, entry.item, entry))
        self._compact()

    def _key(self, entry: _Entry) -> Key:
        return (entry.view.arrival_s,) if entry.rank == FIRST else self.key_of(entry.view)

    def _first_rank(self, request: Request) -> int:
        # Once tokens were sent, the TTFT deadline says nothing: resume before starting others.
        resumed = request.num_output_tokens > 0 and not self.policy.starvation_free
        return FIRST if resumed else NORMAL

    def _schedule_event(self, entry: _Entry) -> None:
        if entry.rank == NORMAL and self.policy.demotes:
            view = entry.view
            hopeless_at_s = view.deadline_s - self.context.prefill_s(view)
            if hopeless_at_s < view.arrival_s + self._max_wait_s:
                heapq.heappush(self._events, (hopeless_at_s, DEMOTED, entry.item, entry))
                return
        if entry.rank != FIRST and not self.policy.starvation_free:
            starved_at_s = entry.view.arrival_s + self._max_wait_s
            heapq.heappush(self._events, (starved_at_s, FIRST, entry.item, entry))

    def _set_rank(self, entry: _Entry, rank: int) -> None:
        tokens = entry.view.prompt_tokens
        self.backlog_tokens += tokens * ((rank != DEMOTED) - (entry.rank != DEMOTED))
        entry.rank = rank

    def _forget(self, entry: _Entry) -> None:
        entry.item = 0
        if entry.rank != DEMOTED:
            self.backlog_tokens -= entry.view.prompt_tokens

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + _COMPACT_AT:
            self._heap = [it for it in self._heap if it[4].item == it[3]]
            heapq.heapify(self._heap)
        if len(self._events) > 2 * len(self._entries) + _COMPACT_AT:
            self._events = [it for it in self._events if it[3].item == it[2]]
            heapq.heapify(self._events)

    def _rebuild(self) -> None:
        self._heap, self._events = [], []
        heap: list[tuple[int, Key, int, int, _Entry]] = []
        policy = self.policy
        for entry in self._entries.values():
            self._set_rank(entry, self._first_rank(entry.request))
            key = self._key(entry)
            if self.policy is not policy:  # it raised, and the fallback rebuilt everything
                return
            self._items += 1
            entry.item = self._items
            heap.append((entry.rank, key, entry.order, entry.item, entry))
            self._schedule_event(entry)
        heapq.heapify(heap)
        self._heap = heap

    def _fall_back(self, error: Exception) -> None:
        failed = self.policy.name
        self.policy = POLICIES["fcfs"]
        self.context = PolicyContext(self.context.prefill_s_per_token, self.context.load, {})
        self._rebuild()
        self._on_policy_error(failed, error)


def _comparable(key: Key) -> Key:
    # Checked here, where the policy is to blame, and not when a heap fails to compare it.
    numbers = tuple(map(float, key))
    if any(map(math.isnan, numbers)):
        raise ValueError(f"the key {key} has no order")
    return numbers
