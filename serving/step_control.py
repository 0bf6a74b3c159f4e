"""What is set before each step? Running order, token budget, admission, the load slide.

Called by `SchedulerHook` between steps; the formulas are in `step_limits` and `victims`.
Each rule acts only if the limits in force switch it on, and counts what it did.
"""

import functools
import math
from dataclasses import replace
from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus

from serving import compat
from serving.batch import DecodeState
from serving.contracts import Envelope, Limits
from serving.observer import Observer
from serving.policies.base import Key, RequestView
from serving.queue import PolicyQueue
from serving.standing import hopeless_s
from serving.step_limits import LoadSlide, peak_tokens, slack_budget
from serving.victims import Victim

_STARTABLE = (RequestStatus.WAITING, RequestStatus.PREEMPTED)
_SLIDE_PERIOD_S = 0.5
_CAN_WAIT = 4.0  # times the head's prefill: what a prefill begun must have left to yield
_SHORT_LAXITY = 0.25  # of the usual TTFT target: less is short


class StepControl:
    """Applies the limits in force to the coming step.

    Attributes:
        last_budget: tokens the last step was allowed.
        yielding: prefills begun that this step leaves out, for `HMASScheduler` to hide.
        Counters of the rules: see `contracts.RuleCounts`.
    """

    def __init__(
        self, scheduler: Any, queue: PolicyQueue, observer: Observer, envelope: Envelope
    ) -> None:
        self._scheduler, self._queue, self._observer = scheduler, queue, observer
        self._envelope = envelope
        self.slide = LoadSlide()
        self._slide_due_s = 0.0
        self._yielded_last = self._passes = False
        self.yielding: list[Any] = []
        self.last_budget = 0
        self.slack_bound_steps = self.kv_held_steps = self.share_raised_steps = 0
        self.yielded_prefills = self.partial_held_steps = self.chosen_victims = 0
        self._would_be: Any = None  # the victim that vLLM would have taken

    def prepare(self, limits: Limits, now_s: float) -> None:
        """Demote, order and limit; afterwards vLLM's own `schedule` does the step."""
        queue, scheduler = self._queue, self._scheduler
        if now_s >= self._slide_due_s:
            self._slide_due_s = now_s + _SLIDE_PERIOD_S
            self._update_load()
        queue.advance(now_s)
        queue.refresh_cached()
        self.yielding, self._would_be = [], None
        state = None
        if limits.follow_slack or limits.kv_reserve > 0.0:
            state = self._observer.batch.state(self._observer.busy_until_s(now_s))
        partial: list[Any] = []
        if limits.follow_slack or limits.prefill_by_key or queue.policy.name != "fcfs":
            partial = self._order_running(now_s)
        elif limits.max_partial_prefills:
            partial = self._partial()
        self.last_budget = self._token_budget(limits, state, partial, now_s)
        scheduler.max_num_scheduled_tokens = self.last_budget
        most, running = self._max_active(limits, state), len(scheduler.running)
        threshold, self._passes = limits.long_prefill_threshold, False
        # Nobody yields to a head that this step would not admit.
        if limits.prefill_by_key and partial and queue and most > running:
            threshold = self._make_room(limits, partial, now_s)
        if queue and 0 < limits.max_partial_prefills <= len(partial):
            self.partial_held_steps += not self._passes
            most = min(most, running + self._passes)
        scheduler.scheduler_config.long_prefill_token_threshold = threshold
        if limits.choose_victims:
            self._order_victims(now_s)
        # What yields is not in the batch that vLLM will see, so it does not count there.
        hidden = len(self.yielding)
        compat.set_max_active(scheduler, most - hidden, hidden)

    def end_step(self) -> None:
        """What is preempted between steps (a cache reset) was nobody's choice."""
        self._would_be = None
        self._queue.end_step()

    def preempted(self, request: Any) -> None:
        """This one was taken; counted if vLLM would have taken another."""
        if self._would_be is not None and request is not self._would_be:
            self.chosen_victims += 1

    def peak_blocks(self, state: DecodeState | None = None) -> int:
        """KV blocks at the predicted peak of the running batch."""
        if state is None:
            state = self._observer.batch.state(0.0)
        blocks = peak_tokens(state.tokens, state.remaining) / self._envelope.block_size
        return int(blocks) + len(state.tokens) // 2  # the last block of each is half empty

    def _update_load(self) -> None:
        prefill_s = self._observer.prefill_s_per_token()
        decode_s = self._observer.decode_s_per_token()
        self.slide.update(self._queue.backlog_tokens * prefill_s, self._observer.horizon_s)
        self._queue.set_load(self.slide.load, prefill_s, decode_s)

    def _order_running(self, now_s: float) -> list[Any]:
        # Decodes first, partial prefills by standing and key: the last is the next victim.
        partial = self._partial()
        if partial:
            keyed = sorted((*self._place(r, now_s), i) for i, r in enumerate(partial))
            partial = [partial[i] for *_, i in keyed]
            running = self._scheduler.running
            if running[-len(partial) :] != partial:
                begun = {r.request_id for r in partial}
                others = [r for r in running if r.request_id not in begun]
                self._scheduler.running = others + partial
        return partial

    def _place(self, request: Any, now_s: float) -> tuple[int, Key]:
        return self._queue.place_of(self._view_of_rest(request), now_s)

    def _view_of_rest(self, request: Any) -> RequestView:
        # By the prompt tokens that are left, not by those it came with.
        left = max(0, request.num_tokens - request.num_computed_tokens)
        return replace(self._observer.view_of(request), prompt_tokens=left)

    def _may_wait(
        self, request: Any, head: tuple[int, Key], now_s: float, pass_s: float
    ) -> bool:
        # Work on a prefill that then misses its deadline is lost: it yields while it has
        # time, or when it is late already.
        if head >= self._place(request, now_s):
            return False
        left = request.num_tokens - request.num_computed_tokens
        view, rate = self._observer.view_of(request), self._queue.context.prefill_s_per_token
        spare_s = view.deadline_s - left * rate - now_s
        return not 0.0 <= spare_s < pass_s

    def _partial(self) -> list[Any]:
        # Out of the running list itself: a request must neither be lost nor invented here.
        begun = self._observer.batch.partial_prefills()
        if not begun:
            return []
        return [r for r in self._scheduler.running if r.request_id in begun]

    def _token_budget(
        self, limits: Limits, state: DecodeState | None, partial: list[Any], now_s: float
    ) -> int:
        running = len(self._scheduler.running)
        if not limits.follow_slack or state is None or not running:
            return limits.token_budget
        cost, share = self._observer.cost, 0.0
        if limits.prefill_share > 0.0 and self._prefill_is_late(partial, now_s):
            share = limits.prefill_share
        context = partial[0].num_computed_tokens if partial else 0
        sized = functools.partial(
            slack_budget, limits.token_budget, state, cost.coefficients, cost.margin
        )
        budget = sized(share, context)
        if share and budget < limits.token_budget:
            self.share_raised_steps += budget > sized(0.0, context)
        # No decode is left out, nor are its draft tokens.
        drafts = int(self._scheduler.num_spec_tokens) * int(state.decoding.sum())
        budget = min(limits.token_budget, max(budget + drafts, running))
        self.slack_bound_steps += budget < limits.token_budget
        return budget

    def _prefill_is_late(self, partial: list[Any], now_s: float) -> bool:
        # Short but not hopeless: time given to a prefill that is late anyway is lost.
        views = [self._view_of_rest(r) for r in partial[:1]]
        if self._queue:
            views.append(self._queue.head_place()[0])
        per_token_s = self._observer.cost.coefficients.per_prefill_token_s
        short_s = _SHORT_LAXITY * self._observer.horizon_s
        return any(
            0.0 <= hopeless_s(view, per_token_s) - now_s < short_s
            for view in views
        )

    def _make_room(self, limits: Limits, partial: list[Any], now_s: float) -> int:
        """Let the waiting head pass prefills of higher place; returns the prefill threshold.

        vLLM serves what runs before what waits. For a head that needs at most half of the
        step's prefill tokens, a threshold bounds the first prefill begun and the others sit
        out the step; for a longer one all that must yield do. At least every other step
        serves them, should the head not be admitted after all (KV blocks, LoRA slots).
        """
        threshold = limits.long_prefill_threshold
        if self._queue.policy.shares or self._yielded_last or not self._head_can_start():
            self._yielded_last = False
            return threshold
        head, place = self._queue.head_place()
        pass_s = _CAN_WAIT * self._queue.context.prefill_s(head)
        # vLLM counts the LoRAs of those it sees. One that sits out must have none, or the
        # next step may hold more than max_loras, which vLLM asserts.
        behind = [
            r for r in partial
            if r.lora_request is None and self._may_wait(r, place, now_s, pass_s)
        ]
        running = self._scheduler.running
        need = math.ceil((head.prompt_tokens + 1) / self._envelope.block_size)
        if (
            not behind
            or compat.free_blocks(self._scheduler) < need + len(running)
        ):
            return threshold
        self._passes = True
        self.yielded_prefills += len(behind)
        room = self.last_budget - (len(running) - len(partial))
        self.yielding = behind
        if 2 * head.prompt_tokens <= room and not threshold and len(behind) == len(partial):
            self.yielding = behind[1:]
            threshold = max(1, room - head.prompt_tokens)
        self._yielded_last = bool(self.yielding)
        return threshold

    def _head_can_start(self) -> bool:
        # Not while the engine admits nobody, nor while the head's grammar is compiled.
        if self._scheduler.pause_state != PauseState.UNPAUSED:
            return False
        head: Any = self._queue.peek_request()
        if head.status in _STARTABLE:
            return True
        waits_for = head.structured_output_request
        return waits_for is not None and waits_for.grammar is not None

    def _order_victims(self, now_s: float) -> None:
        # Only when this step may run out of blocks; elsewhere the order is the policy's.
        scheduler = self._scheduler
        running = scheduler.running
        if len(running) < 2 or compat.free_blocks(scheduler) > len(running) + (
            self.last_budget // self._envelope.block_size
        ):
            return
        losses = {r.request_id: self._victim(r, now_s).loss() for r in running}
        ordered = sorted(running, key=lambda r: losses[r.request_id])
        # Chunk budget still goes by the policy: only the last ones change their place, and
        # those within the dwell, because a step may take more than the last ones.
        last = ordered[-max(1, len(ordered) // 8) :]
        marked = {r.request_id for r in last}
        rest = [r for r in running if r.request_id not in marked]
        self._would_be = running[-1]
        scheduler.running = sorted(rest, key=lambda r: losses[r.request_id][0]) + last

    def _victim(self, request: Any, now_s: float) -> Victim:
        track = self._observer.track(request)
        if track is None:
            return Victim(True, math.inf, math.inf, 1.0, request.num_computed_tokens)
        view, slo, computed = track.view, track.view.slo, request.num_computed_tokens
        late = track.first_token_s is None and now_s > view.deadline_s
        return Victim(
            lost=late or (slo.ttft_ms is None and slo.tpot_ms is None and slo.e2e_ms is None),
            since_preempted_s=now_s - track.preempted_s,
            remaining=track.expected_tokens - request.num_output_tokens,
            blocks=math.ceil(computed / self._envelope.block_size),
            computed=computed,
        )

    def _max_active(self, limits: Limits, state: DecodeState | None) -> int:
        # Holding back means: no more than run now. An empty batch always admits.
        running = len(self._scheduler.running)
        most = limits.max_active_requests
        if not running or not self._queue:
            return most
        if limits.kv_reserve > 0.0 and state is not None:
            view = self._queue.head_place()[0]
            need = (view.prompt_tokens + view.predicted_output_tokens) / self._envelope.block_size
            room = (1.0 - limits.kv_reserve) * self._envelope.kv_blocks
            if self.peak_blocks(state) + need > room:
                self.kv_held_steps += 1
                return min(most, running)
        return most
