"""What does the scheduler hook know about each request, and learn from each step?

Classifies arrivals, follows requests through steps, and feeds the cost model, the
length model and the accounting. Called by `HMASScheduler` only.
"""

from collections import deque
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request

from serving.accounting import Accounting, RequestTrack
from serving.contracts import SLO, Finish
from serving.perception.attributes import deadline_s, slo_of, tenant_of
from serving.perception.cost_model import CostModel, StepShape, step_shape
from serving.perception.length_model import LengthModel
from serving.policies import RequestView
from serving.settings import EngineSettings

_FINISHES: dict[str, Finish] = {
    "stop": "stop", "repetition": "stop", "length": "length", "abort": "aborted",
}  # fmt: skip
_SERVED = ("stop", "length")


class Observer:
    """Per-request knowledge and online models of one engine core.

    Attributes:
        horizon_s: mean TTFT target of recent arrivals: the time queued prefill has.
        steps, last_step_s: steps measured, and the duration of the last one.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.accounting = Accounting(settings.journal_size, settings.max_tenants)
        self.cost, self.lengths = CostModel(), LengthModel()
        self.horizon_s, self.last_step_s, self.steps = 2.0, 0.0, 0
        self.preemptions = self.recomputed_tokens = 0
        self._in_flight: deque[tuple[SchedulerOutput, StepShape, float]] = deque()
        self._last_output_s = 0.0
        self._served: list[tuple[str, Finish]] = []  # their last step is being reported

    def arrive(self, request: Request) -> None:
        """Classify a new request and start following it."""
        settings, params = self.settings, request.sampling_params
        extra = (params.extra_args if params is not None else None) or {}
        lora = request.lora_request.lora_name if request.lora_request else None
        tenant = tenant_of(extra, lora, settings)
        slo_class, slo = slo_of(extra, settings)
        group = self.lengths.group(tenant, request.num_prompt_tokens, request.max_tokens)
        expected = self.lengths.remaining(group, 0, request.max_tokens)
        decode_s = expected * max(self.last_step_s, self.cost.coefficients.base_s)
        arrival_s = request.arrival_time
        view = RequestView(
            request_id=request.request_id, tenant=tenant, slo_class=slo_class, slo=slo,
            arrival_s=arrival_s, deadline_s=deadline_s(slo, arrival_s, decode_s),
            prompt_tokens=request.num_prompt_tokens, priority=request.priority,
            weight=max(settings.tenant_weights.get(tenant, 1.0), 1e-3),
            predicted_output_tokens=expected,
        )  # fmt: skip
        if slo.ttft_ms is not None:
            self.horizon_s += 0.05 * (slo.ttft_ms / 1000 - self.horizon_s)
        self.accounting.arrive(RequestTrack(view, request.max_tokens, group, expected))

    def track(self, request: Request) -> RequestTrack | None:
        """What is known of a request; None if its classification failed."""
        return self.accounting.tracks.get(request.request_id)

    def view_of(self, request: Request) -> RequestView:
        """The policies' view of a request; one that could not be classified has no SLO."""
        if track := self.track(request):
            return track.view
        return RequestView(
            request.request_id, "default", "best_effort", SLO(), request.arrival_time,
            float("inf"), request.num_prompt_tokens,
        )  # fmt: skip

    def busy_until_s(self, now_s: float) -> float:
        """When the step in flight will probably end (async scheduling runs one ahead)."""
        if not self._in_flight:
            return now_s
        _, shape, began_s = self._in_flight[-1]
        return max(now_s, began_s + self.cost.predict(shape))

    def scheduled(
        self, output: SchedulerOutput, requests: dict[str, Request], now_s: float, policy: str,
        epoch: int,
    ) -> None:  # fmt: skip
        """Note what a step is to compute, and whom it admitted under which epoch."""
        for request_id in output.num_scheduled_tokens:
            track = self.accounting.tracks.get(request_id)
            if track is not None and track.admitted_s is None:
                track.admitted_s, track.policy, track.epoch = now_s, policy, epoch
                track.expected_tokens = self.lengths.remaining(track.group, 0, track.max_tokens)
        if output.num_scheduled_tokens:
            shape = step_shape(output.num_scheduled_tokens, requests)
            self._in_flight.append((output, shape, now_s))

    def preempted(self, request: Request) -> None:
        """A running request lost its KV blocks and starts over."""
        self.preemptions += 1
        self.recomputed_tokens += request.num_computed_tokens
        if track := self.track(request):
            track.preemptions += 1

    def completed(self, scheduler_output: SchedulerOutput, outputs: Any, now_s: float) -> None:
        """Learn from a finished step: its duration, and the tokens it produced."""
        while self._in_flight and scheduler_output.num_scheduled_tokens:
            output, shape, began_s = self._in_flight.popleft()
            if output is scheduler_output:
                self.steps += 1
                self.last_step_s = now_s - max(began_s, self._last_output_s)
                self.cost.learn(shape, self.last_step_s)
                break
        self._last_output_s = now_s
        for client in outputs.values():
            for item in client.outputs:
                track = self.accounting.tracks.get(item.request_id)
                if track is not None and item.new_token_ids:
                    track.on_tokens(len(item.new_token_ids), now_s)
        served, self._served = self._served, []
        for request_id, finish in served:
            if track := self.accounting.tracks.get(request_id):
                self.lengths.learn(track.group, track.output_tokens)
            self.accounting.leave(request_id, finish, now_s)

    def leaving(self, request: Request, now_s: float) -> None:
        """A request is being freed; the last tokens of a served one are still to be counted."""
        finish = _FINISHES.get(str(request.get_finished_reason()), "error")
        if finish in _SERVED:
            self._served.append((request.request_id, finish))
        else:
            self.accounting.leave(request.request_id, finish, now_s)
