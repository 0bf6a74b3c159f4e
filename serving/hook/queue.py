"""In which order do waiting requests reach the engine? Takes the place of vLLM's waiting queue.

The order itself is `core.queue`; here is what vLLM's scheduler calls, and which row is whose.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

from serving.core import calls, queue
from serving.core.state import NONE, fill
from serving.hook.order import Order
from serving.perception.lanes import Lanes
from serving.policies import RequestView
from serving.policies.base import seconds

Place = tuple[int, float, float]  # standing and key
# What changes of a request after its arrival.
_CHANGING = (
    "prompt_tokens", "cached_tokens", "attained_tokens", "predicted_output_tokens",
    "q90_output_tokens",
)  # fmt: skip


class PolicyQueue(Order, RequestQueue):
    """vLLM's waiting queue, in the order of the policy in force.

    Args:
        view_of: gives the policies' view of a request, as it is now.
        max_wait_s: a request that has waited longer outranks every policy.
        on_policy_error: called with the failing policy's name and the exception,
            after the queue has fallen back to first come, first served.
        lanes: the tenants' work, weights, floors and buckets, and the rows.
        follow: brings the row of a request up to date that is queued again, or waits. Without it
            its view says what is new.
    """

    def __init__(
        self,
        view_of: Callable[[Any], RequestView],
        max_wait_s: float,
        on_policy_error: Callable[[str, Exception], None],
        lanes: Lanes | None = None,
        follow: Callable[[Any, int], None] | None = None,
    ) -> None:
        lanes = Lanes({}, {}, 64) if lanes is None else lanes
        super().__init__(max_wait_s, on_policy_error, lanes)
        self.rows, self._view_of = lanes.rows, view_of
        self._follow = follow or self._follow_view
        self._waiting: dict[str, int] = {}  # rows of those that wait
        self._taken = 0  # in this step, put back ones included
        self._head: Any = None  # whom the step serves next, as far as is known without asking
        # Taken in this step, and taken, but not started, because remote KV comes first: the row,
        # and what its tenant was charged.
        self._popped: dict[str, tuple[int, int]] = {}
        self._loading: dict[str, tuple[int, int]] = {}

    def end_step(self, scheduled: Mapping[str, int] = MappingProxyType({})) -> None:
        """Who was taken in this step has started: what comes back later was preempted.

        One that vLLM took but did not start loads its remote KV, and starts in a later step.

        Args:
            scheduled: request id -> tokens of this step. vLLM has looked into the KV cache, and
                has asked its KV connector, so tenants are charged what is really to be computed.
        """
        self._taken, self._head = 0, None
        if not self._popped and not self._loading:
            return
        taken, rows = self._popped, self.rows
        if self._loading:
            taken = self._loading | taken
        self._popped, self._loading = {}, {}
        for name, (row, charged) in taken.items():
            request, count = rows.requests[row], scheduled.get(name, 0)
            if rows.by_name.get(name) != row or (not count and request.is_finished()):
                continue  # it has left; its row may be another one's by now
            # vLLM computes the last token, even if all KV is loaded.
            rest = max(1, request.num_tokens - request.num_computed_tokens + count)
            if not count:
                self._loading[name] = row, rest
            if rest != charged:
                calls.started(rows.at, row, rest)

    def foresee(self, row: int) -> None:
        """The coming step begins with this row in front, NONE where nothing waits."""
        self._head = None if row == NONE else self.rows.requests[row]

    def refresh_cached(self) -> None:
        """Look again at the cached prefixes of a few requests: a new head's, and all in turn."""
        facts = self.core.requests
        for row in queue.to_look_up(self.core):
            if row != NONE:
                before = facts["prompt_tokens"][row], facts["cached_tokens"][row]
                self._follow(self.rows.requests[row], row)
                if before != (facts["prompt_tokens"][row], facts["cached_tokens"][row]):
                    queue.look_again(self.core, row, int(before[0]))
        self._fall_back_if_broken()

    # -- what stands where ---------------------------------------------------------------

    def waiting_rows(self) -> Collection[int]:
        """Rows of all waiting requests, in no order."""
        return self._waiting.values()

    def place_of(self, request: Any, prompt_tokens: int) -> Place:
        """Standing and key of a request whose prefill has begun, by the tokens left of it."""
        row = self.rows.by_name[request.request_id]
        standing, first, second = queue.place_of(self.core, row, prompt_tokens)
        return standing, first, second

    # -- vLLM's waiting queue ------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        """Queue a request behind all others of equal key."""
        self._head = None
        if calls.enter(self.rows.at, self._row_of(request)):
            self.fall_back()

    def prepend_request(self, request: Request) -> None:
        """Queue a preempted or skipped request before all others of equal key."""
        self._head = None
        row, _ = self._popped.pop(request.request_id, (NONE, 0))
        if row != NONE:  # taken in this very step, and not started: nothing has happened
            self._waiting[request.request_id] = row
            broken = calls.put_back(self.rows.at, row)
        else:
            broken = calls.enter_first(self.rows.at, self._row_of(request))
        if broken:
            self.fall_back()

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Prepend one after the other, so the last one ends up in front."""
        for request in requests:
            self.prepend_request(request)

    def peek_request(self) -> Request:
        """The request to serve next; IndexError when empty."""
        if self._head is not None:
            return self._head
        row = calls.pick(self.rows.at)
        if row == NONE:
            raise IndexError("peek into an empty queue")
        return self.rows.requests[row]

    def pop_request(self) -> Request:
        """Remove and return the request to serve next; IndexError when empty."""
        self._head = None
        row, charged = calls.take(self.rows.at, self._taken)
        if row == NONE:
            raise IndexError("pop from an empty queue")
        request = self.rows.requests[row]
        self._taken += 1
        del self._waiting[request.request_id]
        self._popped[request.request_id] = row, charged
        return request

    def remove_request(self, request: Request) -> None:
        """Remove a request wherever it stands; ValueError when it is not queued."""
        self._head = None
        row = self._waiting.pop(request.request_id, NONE)
        if row == NONE:
            raise ValueError(f"request {request.request_id} is not in the waiting queue")
        calls.leave_queue(self.rows.at, row)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Remove those of `requests` that are queued."""
        for request in requests:
            if request.request_id in self._waiting:
                self.remove_request(request)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request: Any) -> bool:
        return request.request_id in self._waiting

    def __iter__(self) -> Iterator[Request]:
        rows = np.fromiter(self._waiting.values(), np.int64, len(self._waiting))
        order = np.lexsort(self.core.places[rows].T[::-1])
        return iter([self.rows.requests[row] for row in rows[order]])

    # -- inside --------------------------------------------------------------------------

    def _row_of(self, request: Any) -> int:
        """The row of a request that is about to be queued."""
        row = self.rows.by_name.get(request.request_id, NONE)
        if row == NONE:
            row = self.rows.open(request)
            self._fill(row, self._view_of(request))
        else:
            self._loading.pop(request.request_id, None)  # its remote KV was lost: it waits anew
            self._follow(request, row)
        self._waiting[request.request_id] = row
        # Once tokens were sent, the TTFT deadline says nothing: resume before starting others.
        attained = self.core.requests["attained_tokens"][row]
        self.core.requests["resumed"][row] = attained > 0 or request.num_output_tokens > 0
        return row

    def _follow_view(self, request: Any, row: int) -> None:
        view, facts = self._view_of(request), self.core.requests
        for name in _CHANGING:
            facts[name][row] = getattr(view, name)

    def _fill(self, row: int, view: RequestView) -> None:
        # Floats, whatever whole numbers there are: other types would be compiled for anew.
        slo, lane = view.slo, self.lanes.of(view.tenant)
        fill(
            self.core, row, view.arrival_s, view.deadline_s, seconds(slo.ttft_ms),
            seconds(slo.tpot_ms), seconds(slo.e2e_ms), view.prompt_tokens, view.cached_tokens,
            view.attained_tokens, float(view.priority), float(view.weight),
            float(view.predicted_output_tokens), float(view.q90_output_tokens), lane.row,
        )  # fmt: skip
