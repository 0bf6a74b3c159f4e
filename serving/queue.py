"""In which order do waiting requests reach the engine? Takes the place of vLLM's waiting queue.

The order itself is in `order`; here is what vLLM's scheduler calls.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

from serving.order import Order
from serving.standing import FIRST


class PolicyQueue(Order, RequestQueue):
    """vLLM's waiting queue, in the order of the policy in force; arguments as of `Order`."""

    def add_request(self, request: Request) -> None:
        """Queue a request behind all others of equal key."""
        self._last += 1
        entry = self._entry(request, self._last)
        if not entry.lane.waiting:
            self.lanes.begin_backlog(entry.lane)
        if self.buckets:
            view = entry.view
            decode_s = view.predicted_output_tokens * self.context.decode_s_per_token
            work_s = self.context.prefill_s(view) + decode_s
            entry.conforms_s = self.lanes.overdraw(entry.lane, view.arrival_s, work_s)
            self.counts["over_share"] += entry.conforms_s > view.arrival_s
        self._insert(entry)

    def prepend_request(self, request: Request) -> None:
        """Queue a preempted or skipped request before all others of equal key."""
        entry = self._popped.pop(request.request_id, None)
        if entry is not None:  # taken in this very step, and not started: nothing has happened
            self.lanes.take_back(entry.lane, entry.charged, entry.lowered)
            self.counts["floor_served"] -= entry.floor
            self.counts["ceiling_served"] -= entry.ceiling
            if self._first != self._first_then:  # it goes before one that was preempted since
                self._first = entry.order = self._first - 1
            self._insert(entry, new=False)
            return
        self._first -= 1
        entry = self._entry(request, self._first)
        if not entry.lane.waiting:
            self.lanes.begin_backlog(entry.lane)
        self._insert(entry)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Prepend one after the other, so the last one ends up in front."""
        for request in requests:
            self.prepend_request(request)

    def peek_request(self) -> Request:
        """The request to serve next; IndexError when empty."""
        request: Request = self._pick().heap[0][4].request
        return request

    def pop_request(self) -> Request:
        """Remove and return the request to serve next; IndexError when empty."""
        lane = self._pick()
        standing, _, _, _, entry = lane.heap[0]
        name = entry.request.request_id
        del self._entries[name]
        self._forget(entry)
        entry.floor = self._owed
        entry.ceiling = standing == FIRST and not entry.resumed
        self.counts["floor_served"] += entry.floor
        self.counts["ceiling_served"] += entry.ceiling
        entry.charged = entry.view.prompt_tokens
        entry.lowered = self.lanes.admit(lane, entry.charged)
        if not self._popped:
            self._first_then = self._first
        self._popped[name] = entry
        return entry.request

    def remove_request(self, request: Request) -> None:
        """Remove a request wherever it stands; ValueError when it is not queued."""
        entry = self._entries.pop(request.request_id, None)
        if entry is None:
            raise ValueError(f"request {request.request_id} is not in the waiting queue")
        self._forget(entry)

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
        valid = [it for lane in self.lanes for it in lane.heap if it[4].item == it[3]]
        return iter([it[4].request for it in sorted(valid)])

