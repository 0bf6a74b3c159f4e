"""What is set before each step? Running order, token budget, admission, the load slide.

Called by `HMASScheduler` between steps; the formulas are in `step_limits`.
"""

from typing import Any

from serving import compat
from serving.accounting import RequestTrack
from serving.contracts import Envelope, Limits
from serving.observer import Observer
from serving.perception.cost_model import StepShape
from serving.queue import PolicyQueue
from serving.step_limits import DecodeSlack, LoadSlide, kv_allows, slack_budget

_SLIDE_PERIOD_S = 0.5


class StepControl:
    """Applies the limits in force to the coming step.

    Attributes:
        slack_bound_steps: steps whose budget the decodes' slack has lowered.
        kv_held_steps: steps that admitted nobody for the sake of the KV cache.
        last_budget: tokens the last step was allowed.
    """

    def __init__(
        self, scheduler: Any, queue: PolicyQueue, observer: Observer, envelope: Envelope
    ) -> None:
        self._scheduler, self._queue, self._observer = scheduler, queue, observer
        self._envelope = envelope
        self.slide = LoadSlide()
        self._slide_due_s = 0.0
        self.slack_bound_steps = self.kv_held_steps = self.last_budget = 0

    def prepare(self, limits: Limits, now_s: float) -> None:
        """Demote, order and limit; afterwards vLLM's own `schedule` does the step."""
        queue = self._queue
        if now_s >= self._slide_due_s:
            self._slide_due_s = now_s + _SLIDE_PERIOD_S
            self._update_load()
        queue.advance(now_s)
        if limits.follow_slack or queue.policy.name != "fcfs":
            self._order_running()
        self.last_budget = self._token_budget(limits, now_s)
        self._scheduler.max_num_scheduled_tokens = self.last_budget
        compat.set_max_active(self._scheduler, self._max_active(limits))

    def predicted_peak_blocks(self) -> int:
        """KV blocks if every running request reaches its predicted length."""
        running = self._scheduler.running
        tokens = 0.0
        for request in running:
            track = self._observer.track(request)
            expected = track.expected_tokens if track else 0.0
            tokens += max(request.num_tokens, request.num_prompt_tokens + expected)
        return int(tokens / self._envelope.block_size) + len(running)

    def decode_slacks(self, now_s: float) -> tuple[list[DecodeSlack], StepShape]:
        """Slack of every running decode that has a TPOT target, and the decode part of a step."""
        start_s = self._observer.busy_until_s(now_s)
        slacks: list[DecodeSlack] = []
        decodes = context = 0
        for request in self._scheduler.running:
            track = self._observer.track(request)
            if track is None or request.is_prefill_chunk:
                continue
            decodes += 1
            context += request.num_computed_tokens
            if track.first_token_s is not None and track.view.slo.tpot_ms is not None:
                slacks.append(_slack(track, compat.placeholders(request), start_s))
        return slacks, StepShape(decodes=decodes, decode_context=context)

    def _update_load(self) -> None:
        per_token_s = self._observer.cost.coefficients.per_prefill_token_s
        backlog_s = self._queue.backlog_tokens * per_token_s
        if self.slide.update(backlog_s, self._observer.horizon_s):
            self._queue.set_load(self.slide.load, per_token_s)

    def _order_running(self) -> None:
        # Decodes first, partial prefills by policy key: the last is the next victim.
        scheduler = self._scheduler
        partial = [r for r in scheduler.running if r.is_prefill_chunk]
        if partial:
            key_of, view_of = self._queue.key_of, self._observer.view_of
            keyed = sorted((key_of(view_of(r)), i) for i, r in enumerate(partial))
            decodes = [r for r in scheduler.running if not r.is_prefill_chunk]
            scheduler.running = decodes + [partial[i] for _, i in keyed]

    def _token_budget(self, limits: Limits, now_s: float) -> int:
        running = self._scheduler.running
        if not limits.follow_slack or not running:
            return limits.token_budget
        slacks, shape = self.decode_slacks(now_s)
        cost = self._observer.cost
        budget = slack_budget(limits.token_budget, slacks, shape, cost.coefficients, cost.margin)
        budget = min(limits.token_budget, max(budget, len(running)))  # no decode is left out
        self.slack_bound_steps += budget < limits.token_budget
        return budget

    def _max_active(self, limits: Limits) -> int:
        # Holding back means: no more than run now. An empty batch always admits.
        running = self._scheduler.running
        if limits.kv_reserve <= 0.0 or not running or not self._queue:
            return limits.max_active_requests
        view = self._observer.view_of(self._queue.peek_request())
        need = (view.prompt_tokens + view.predicted_output_tokens) / self._envelope.block_size
        peak = self.predicted_peak_blocks()
        if kv_allows(peak, need, self._envelope.kv_blocks, limits.kv_reserve):
            return limits.max_active_requests
        self.kv_held_steps += 1
        return min(limits.max_active_requests, len(running))


def _slack(track: RequestTrack, in_flight: int, start_s: float) -> DecodeSlack:
    tpot_s = (track.view.slo.tpot_ms or 0.0) / 1000
    produced = track.output_tokens + in_flight
    due_s = (track.first_token_s or start_s) + tpot_s * produced
    expected = max(1.0, track.expected_tokens - produced)
    return DecodeSlack(due_s - start_s, expected, tpot_s)
