"""May the waiting head go before partly prefilled prompts? Half of the rule `serial`.

vLLM serves what runs before what waits, so a long prompt holds up every short one that
comes after its first step. Called by `StepControl` before each step.
"""

from dataclasses import replace
from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus

from serving import compat
from serving.observer import Observer
from serving.policies.base import Key, RequestView
from serving.queue import PolicyQueue
from serving.standing import hopeless_s
from serving.step_limits import KVGroups, blocks_of

_STARTABLE = (RequestStatus.WAITING, RequestStatus.PREEMPTED)
_CAN_WAIT = 4.0  # times the head's prefill: a partial prefill yields only with this much time left


class Passing:
    """Decides in each step whether the head of the queue passes partial prefills.

    Attributes:
        passes: the head goes before some prefill in this step.
        yielding: partial prefills that this step leaves out, for `StepControl` to hide.
    """

    def __init__(
        self, scheduler: Any, queue: PolicyQueue, observer: Observer, groups: KVGroups
    ) -> None:
        self._scheduler, self._queue, self._observer = scheduler, queue, observer
        self._groups = groups
        self.passes = self._yielded_last = False
        self.yielding: list[Any] = []

    def clear(self) -> None:
        """Nobody yields until `make_room` says so."""
        self.passes, self.yielding = False, []

    def place(self, request: Any, now_s: float) -> tuple[int, Key]:
        """Standing and key of a partial prefill, by the tokens that are left of it."""
        return self._queue.place_of(self.view_of_rest(request), now_s)

    def view_of_rest(self, request: Any) -> RequestView:
        """The request with the prompt tokens that are left, not those it came with.

        At least one: vLLM computes the last token, even if all KV was loaded.
        """
        left = max(1, request.num_tokens - request.num_computed_tokens)
        return replace(self._observer.view_of(request), prompt_tokens=left)

    def make_room(self, threshold: int, room: int, partial: list[Any], now_s: float) -> int:
        """Let the waiting head pass prefills of higher place; returns the prefill threshold.

        If the head needs at most half of the step's prefill tokens, a threshold bounds the first
        partial prefill, and the others skip the step. For a longer head, all partial prefills
        that must yield skip it. At least every other step serves them, should the head not be
        admitted after all (KV blocks, LoRA slots).

        Args:
            threshold: the one in force, 0 for none.
            room: prefill tokens of the step.
            partial: partial prefills, the most urgent first.
            now_s: engine clock.
        """
        if self._queue.policy.shares or self._yielded_last or not self._head_can_start():
            self._yielded_last = False
            return threshold
        head, place = self._queue.head_place()
        pass_s = _CAN_WAIT * self._queue.context.prefill_s(head)
        # vLLM counts the LoRAs of the requests that it sees. One that skips must have none, or
        # the next step may hold more than max_loras, which vLLM asserts.
        behind = [
            r for r in partial if r.lora_request is None and self._may_wait(r, place, now_s, pass_s)
        ]
        running = self._scheduler.running
        need = blocks_of(self._groups, head.prompt_tokens + 1)
        if not behind or compat.free_blocks(self._scheduler) < need + len(running):
            return threshold
        self.passes = True
        self._queue.counts["yielded_prefills"] += len(behind)
        self.yielding = behind
        if 2 * head.prompt_tokens <= room and not threshold and len(behind) == len(partial):
            self.yielding = behind[1:]
            threshold = max(1, room - head.prompt_tokens)
        self._yielded_last = bool(self.yielding)
        return threshold

    def _may_wait(
        self, request: Any, head: tuple[int, Key], now_s: float, pass_s: float
    ) -> bool:
        # Work on a prefill that then misses its deadline is lost: a prefill yields only while it
        # has time, or when it is late already.
        rest = self.view_of_rest(request)
        if head >= self._queue.place_of(rest, now_s):
            return False
        spare_s = hopeless_s(rest, self._queue.context.prefill_s_per_token) - now_s
        return not 0.0 <= spare_s < pass_s

    def _head_can_start(self) -> bool:
        # Not while the engine admits no request, nor while the head's grammar is compiled.
        if self._scheduler.pause_state != PauseState.UNPAUSED:
            return False
        head: Any = self._queue.peek_request()
        if head.status in _STARTABLE:
            return True
        waits_for = head.structured_output_request
        return waits_for is not None and waits_for.grammar is not None
