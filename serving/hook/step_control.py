"""How does the core's plan reach vLLM? Called by `SchedulerHook` between steps.

`core.control` plans; here it is told what vLLM says of itself, and vLLM what is planned.
"""

from operator import attrgetter
from typing import Any

import numpy as np
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus

from serving import compat
from serving.contracts import Envelope
from serving.core import calls, decoding
from serving.core.state import NONE
from serving.hook.queue import Place, PolicyQueue

_STARTABLE = (RequestStatus.WAITING, RequestStatus.PREEMPTED)
_computed = attrgetter("num_computed_tokens")
_ASK_STEPS = 256


class StepControl:
    """Has the coming step planned by the limits in force, and sets vLLM accordingly.

    Attributes:
        hidden: running requests that this step leaves out, for `SchedulerHook` to hide.
    """

    def __init__(self, scheduler: Any, queue: PolicyQueue, envelope: Envelope) -> None:
        self._scheduler, self._queue = scheduler, queue
        self._caches = bool(envelope.prefix_caching or scheduler.connector is not None)
        self.hidden: list[Any] = []
        self._steps = 0
        pipelined = scheduler.parallel_config.pipeline_parallel_size > 1
        self._asks_each = bool(scheduler.num_spec_tokens or scheduler.connector or pipelined)
        queue.describe_machine(envelope, compat.kv_groups(scheduler))
        engine = queue.core.engine
        engine["drafts"] = int(scheduler.num_spec_tokens)
        engine["aligned_block"] = compat.aligned_block(scheduler)

    def prepare(self, now_s: float, in_flight: tuple[float, calls.Shape]) -> None:
        """Plan the coming step; afterwards vLLM's own `schedule` does it.

        Args:
            now_s: engine clock.
            in_flight: when the step in flight began, which the coming one has to wait for, and
                its shape.
        """
        queue, scheduler, rows = self._queue, self._scheduler, self._queue.rows
        if self.hidden:
            self.reveal()
        running, limits = scheduler.running, scheduler.lease.decision.limits
        ready, silent = compat.ready_elsewhere(scheduler), compat.silent_sessions(scheduler)
        free = compat.free_blocks(scheduler) if limits.pace_decodes else 0
        self._steps += 1
        asks = self._asks_each or not self._steps % _ASK_STEPS
        broken, seen, asks_head, planned, plan = calls.step(
            rows.at, now_s, NONE if asks or self._caches else len(running), *in_flight, free,
            silent, ready,
        )  # fmt: skip
        if broken:
            queue.fall_back()
        if not planned:
            if self._caches:
                queue.refresh_cached()
            if asks or seen != len(running):
                self._ask(running)
                asks_head = True
            if can_start := asks_head and limits.prefill_by_key:
                free, can_start = compat.free_blocks(scheduler), self._head_can_start()
            plan = calls.plan(rows.at, *in_flight, free, silent, ready, can_start)
        reordered, hidden, budget, threshold, most, head = plan
        queue.foresee(head)
        if reordered:
            in_order = rows.core.running[: len(running)].tolist()
            scheduler.running = [rows.requests[row] for row in in_order]
        if ready and queue.policy.name != "fcfs":
            compat.order_elsewhere(scheduler, self._place)
        if hidden:
            those = rows.core.running[: len(running)]
            skips = those[rows.core.requests["hidden"][those] > 0]
            self.hidden = [rows.requests[row] for row in skips.tolist()]
        scheduler.max_num_scheduled_tokens = budget
        scheduler.scheduler_config.long_prefill_token_threshold = threshold
        compat.set_max_active(scheduler, most, hidden)

    def follow(self, running: list[Any]) -> list[Any]:
        """See that the core knows how far these requests are, which run in this order.

        It follows the steps by itself. Only where vLLM takes tokens back, or gets them from
        elsewhere, is each request asked; and now and then, should the core have missed something.
        """
        if self._asks_each or self._queue.core.engine["running"][0] != len(running):
            self._ask(running)
        return running

    def _ask(self, running: list[Any]) -> None:
        core, rows = self._queue.core, self._queue.rows
        core.engine["running"] = -1
        found = rows.see_running(running)
        computed = np.fromiter(map(_computed, running), int, len(running))
        core.requests["computed_tokens"][found] = computed

    def reveal(self) -> None:
        """Hide no request."""
        self.hidden = []

    def peak_blocks(self) -> int:
        """KV blocks at the predicted peak of the running batch, shared ones once."""
        core = self._queue.core
        self.follow(self._scheduler.running)
        core.engine["used_blocks"] = compat.used_blocks(self._scheduler)
        decoding.look(core)
        return int(decoding.peak_blocks(core))

    def _place(self, request: Any) -> Place:
        left = max(1, request.num_tokens - request.num_computed_tokens)
        return self._queue.place_of(request, left)

    def _head_can_start(self) -> bool:
        # Not while the engine admits no request, nor while the head's grammar is compiled.
        if not self._queue or self._scheduler.pause_state != PauseState.UNPAUSED:
            return False
        head: Any = self._queue.peek_request()
        if head.status in _STARTABLE:
            return True
        waits_for = head.structured_output_request
        return waits_for is not None and waits_for.grammar is not None
