"""What does the scheduler hook know about each request, and learn from each step?

Classifies arrivals, follows requests through steps, and feeds the cost model, the
length model and the accounting. Called by `SchedulerHook` only.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request

from serving.accounting import Accounting, RequestTrack
from serving.batch import Batch
from serving.contracts import SLO, Deprioritised, Finish
from serving.contracts.contract import OTHER
from serving.lanes import Lanes
from serving.perception.attributes import deadline_s, slo_of, tenant_of
from serving.perception.cost_model import CostModel, StepShape
from serving.perception.length_model import LengthModel
from serving.policies import RequestView
from serving.settings import EngineSettings
from serving.standing import DEMOTED, GIVEN_UP, OVER_SHARE

_FINISHES: dict[str, Finish] = {
    "stop": "stop", "repetition": "stop", "length": "length", "abort": "aborted",
}  # fmt: skip
_SERVED = ("stop", "length")
_DEPRIORITISED: dict[int, Deprioritised] = {
    OVER_SHARE: "over_share", GIVEN_UP: "parked", DEMOTED: "demoted",
}  # fmt: skip
_FADE, _SLOWEST = 0.98, 10.0
_FULL_TOKENS = 10_000.0  # that a figure taken over counts for: a few dozen steps' worth
_LEARN_EVERY = 4  # pure decode steps are many and alike


class Observer:
    """Per-request knowledge and online models of one engine core.

    Args:
        settings: of the engine.
        lanes: the tenants' lanes; the observer counts the requests inside and the decodes.
        cached_tokens: prompt tokens of a request that the KV cache holds now.
        prefix_ids: what its prompt begins with, as `Arrival.prefix`.

    Attributes:
        settings: with the contract in force.
        batch: the running requests in arrays.
        mean_ttft_target_s: mean TTFT target of recent arrivals: the time queued prefill has.
        steps, last_step_s: steps measured, and the duration of the last one.
        ended: requests that are aborted now because their answers are complete.
    """

    def __init__(
        self,
        settings: EngineSettings,
        lanes: Lanes,
        cached_tokens: Callable[[Request], int],
        prefix_ids: Callable[[Request], tuple[int, ...]],
        batch: Batch,
    ) -> None:
        self.accounting = Accounting(settings.journal_size, settings.max_tenants)
        self.cost, self.lengths = CostModel(), LengthModel()
        self.batch = batch
        self.mean_ttft_target_s, self.last_step_s, self.steps = 2.0, 0.0, 0
        self.preemptions = self.recomputed_tokens = 0
        self._lanes, self._cached_tokens, self._prefix_ids = lanes, cached_tokens, prefix_ids
        self.promise(settings)
        self._decode_shape = StepShape(decodes=8, decode_context=8_000)
        self._full_s, self._full_tokens = 0.0, 1.0  # of steps that left prompt over, fading
        self._in_flight: deque[tuple[SchedulerOutput, StepShape, float, bool]] = deque()
        self._last_output_s = 0.0
        self._just_looked_up = ""  # a request that arrived a moment ago
        self._served: list[tuple[str, Finish]] = []  # their last step is being reported
        self._between_answers: set[str] = set()  # sessions that wait for their client
        # Preempted with a token in flight, which vLLM still delivers; and the tokens seen.
        self._late: dict[str, tuple[Request, int]] = {}
        self.ended: frozenset[str] = frozenset()

    def arrive(self, request: Request) -> None:
        """Classify a new request and start following it."""
        settings, params = self.settings, request.sampling_params
        extra = (params.extra_args if params is not None else None) or {}
        lora = request.lora_request.lora_name if request.lora_request else None
        tenant = tenant_of(extra, lora, settings)
        slo_class, slo = slo_of(extra, settings, tenant)
        group = self.lengths.group(tenant, request.num_prompt_tokens, request.max_tokens)
        mean, q90 = self.lengths.predicted(group)
        expected = min(mean, request.max_tokens)
        steps = expected / (self.batch.tokens_per_decode * self.batch.turns)
        decode_s = steps * max(self.last_step_s, self.cost.coefficients.base_s)
        arrival_s, cached = request.arrival_time, self._cached_tokens(request)
        lane = self._lanes.enter(tenant)
        view = RequestView(
            request_id=request.request_id, tenant=tenant, slo_class=slo_class, slo=slo,
            arrival_s=arrival_s, deadline_s=deadline_s(slo, arrival_s, decode_s),
            prompt_tokens=request.num_prompt_tokens - cached, priority=request.priority,
            weight=lane.weight, predicted_output_tokens=expected,
            q90_output_tokens=min(q90, request.max_tokens), cached_tokens=cached,
        )  # fmt: skip
        if slo.ttft_ms is not None:
            self.mean_ttft_target_s += 0.05 * (slo.ttft_ms / 1000 - self.mean_ttft_target_s)
        track = RequestTrack(
            view, request.max_tokens, group, expected, request.num_prompt_tokens, cached,
            self._prefix_ids(request), lane=lane,
        )  # fmt: skip
        self.accounting.arrive(track)
        lane.inside += 1
        self._just_looked_up = "" if request.num_output_tokens else request.request_id

    def promise(self, settings: EngineSettings) -> None:
        """Go by another contract from now on; who is inside keeps what it came with."""
        tenants = settings.contract.tenants
        self.settings, self.accounting.listed = settings, frozenset(tenants)
        self._lanes.promise(
            {name: terms.weight for name, terms in tenants.items()},
            {name: terms.floor for name, terms in tenants.items() if terms.floor > 0},
            settings.contract.terms_of(OTHER).weight,
        )

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

    def queued_view(self, request: Request) -> RequestView:
        """The same for a request that is being queued: with what is cached and attained now."""
        track, just_looked_up = self.track(request), self._just_looked_up
        self._just_looked_up = ""
        if track is None:
            return self.view_of(request)
        if request.request_id == just_looked_up:
            return track.view
        view, cached = track.view, self._cached_tokens(request)
        uncached, attained = request.num_tokens - cached, request.num_output_tokens
        if request.request_id in self._late:
            attained = max(1, attained)  # its first token is on its way
        # All three: a session's prompt grows.
        if (uncached, cached, attained) != (
            view.prompt_tokens, view.cached_tokens, view.attained_tokens,
        ):  # fmt: skip
            left = max(1.0, track.expected_tokens - attained)
            track.view = view = replace(
                view, cached_tokens=cached, attained_tokens=attained,
                prompt_tokens=uncached, predicted_output_tokens=left,
                q90_output_tokens=max(left, view.q90_output_tokens - attained),
            )  # fmt: skip
        return view

    def prefill_s_per_token(self) -> float:
        """Seconds per prompt token while prompts fill the steps, decodes included."""
        alone = self.cost.coefficients.per_prefill_token_s
        return min(max(alone, self._full_s / self._full_tokens), _SLOWEST * alone)

    def take_over(self, last_step_s: float, prefill_s_per_token: float) -> None:
        """Begin with what another engine has measured; 0 s per token is unknown."""
        self.last_step_s = last_step_s
        if prefill_s_per_token > 0.0:
            self._full_s = prefill_s_per_token * _FULL_TOKENS
            self._full_tokens = _FULL_TOKENS

    def decode_s_per_token(self) -> float:
        """Engine seconds that one more output token costs in a step that runs anyway, tau."""
        cost, shape = self.cost.coefficients, self._decode_shape
        context = shape.decode_context / max(1, shape.decodes)
        step_s = cost.per_decode_s + cost.per_context_token_s * context
        return step_s / self.batch.tokens_per_decode

    def busy_until_s(self, now_s: float) -> float:
        """When the step in flight will probably end (async scheduling runs one ahead)."""
        if not self._in_flight:
            return now_s
        _, shape, began_s, _ = self._in_flight[-1]
        return max(now_s, began_s + self.cost.predict(shape))

    def scheduled(
        self, output: SchedulerOutput, requests: dict[str, Request], now_s: float, policy: str,
        epoch: int,
    ) -> None:  # fmt: skip
        """Note what a step is to compute, and which requests it admitted under which epoch."""
        counts = output.num_scheduled_tokens
        if not counts:
            return
        for new in output.scheduled_new_reqs:
            self._admitted(new.req_id, counts, requests, now_s, policy, epoch)
        for name in output.scheduled_cached_reqs.resumed_req_ids:
            self._admitted(name, counts, requests, now_s, policy, epoch)
        shape = self.batch.step_shape(counts, output.total_num_scheduled_tokens)
        full = bool(self.batch.partial_prefills())
        self._in_flight.append((output, shape, now_s, full))

    def preempted(self, request: Request, now_s: float) -> None:
        """A running request lost its KV blocks and starts over."""
        self.preemptions += 1
        self.recomputed_tokens += request.num_computed_tokens
        _, last_token_s = self.batch.remove(request)
        if request.num_output_placeholders > 0:
            self._late[request.request_id] = request, request.num_output_tokens
        if track := self.track(request):
            track.preemptions += 1
            track.preempted_s, track.last_token_s = now_s, last_token_s

    def deprioritised(self, request: Request, standing: int, now_s: float) -> None:
        """A waiting request stands behind others from now on; the first time counts."""
        if track := self.track(request):
            after_s = max(0.0, now_s - track.view.arrival_s)
            track.deprioritised.setdefault(_DEPRIORITISED[standing], after_s)

    def paused(self, request: Request, now_s: float) -> None:
        """A streaming-input session has answered and waits for more: it leaves the batch."""
        self.batch.remove(request)
        self._late.pop(request.request_id, None)
        if track := self.track(request):
            track.end_answer(request.num_output_tokens, now_s)
            self._between_answers.add(request.request_id)

    def completed(self, scheduler_output: SchedulerOutput, now_s: float) -> None:
        """Learn from a finished step: its duration, and the first tokens it produced."""
        while self._in_flight and scheduler_output.num_scheduled_tokens:
            output, shape, began_s, full = self._in_flight.popleft()
            if output is scheduler_output:
                seconds = now_s - max(began_s, self._last_output_s)
                if full:
                    self._full_s = _FADE * self._full_s + seconds
                    self._full_tokens = _FADE * self._full_tokens + shape.prefill_tokens
                self._measured(shape, seconds)
                break
        self._last_output_s = now_s
        self._note_late_tokens(now_s)
        self.batch.first_tokens(now_s)
        groups, gaps_s = self.batch.gaps(now_s)
        if len(groups):
            self.accounting.latencies.observe_all("inter_token_seconds", groups, gaps_s)
        if scheduler_output.num_scheduled_tokens:
            self._lanes.count_decodes(self.batch.silent)
        if self._served:
            self._end_served(now_s)

    def leaving(self, request: Request, now_s: float) -> None:
        """A request is being freed; a served one ends with the step that is being reported."""
        name = request.request_id
        finish = _FINISHES.get(str(request.get_finished_reason()), "error")
        paused = name in self._between_answers
        self._between_answers.discard(name)
        track = self.track(request)
        if track is None:
            self._late.pop(name, None)
            return
        group, last_token_s = self.batch.remove(request)
        if self._late.pop(name, None):
            group, last_token_s = self.accounting.group_of(track), track.last_token_s
        if finish in _SERVED and last_token_s:
            gap_s = now_s - last_token_s
            self.accounting.latencies.observe("inter_token_seconds", group, gap_s)
        track.output_tokens = 0 if paused else request.num_output_tokens
        track.last_token_s = self._last_output_s
        if track.lane is not None:
            track.lane.inside -= 1
        if finish == "aborted" and name in self.ended:  # its tokens were reported before
            self.lengths.learn(track.group, track.earlier_tokens + track.output_tokens)
            self.accounting.leave(name, "stop", now_s)
        elif finish in _SERVED:
            self._served.append((name, finish))
        else:
            self.accounting.leave(name, finish, now_s)

    def _admitted(
        self, name: str, counts: dict[str, int], requests: dict[str, Request], now_s: float,
        policy: str, epoch: int,
    ) -> None:  # fmt: skip
        self._late.pop(name, None)
        track = self.accounting.tracks.get(name)
        if track is None:
            return
        request = requests[name]
        self._between_answers.discard(name)
        if track.admitted_s is None:
            track.admitted_s, track.policy, track.epoch = now_s, policy, epoch
            found = request.num_computed_tokens - counts[name]
            self.accounting.admit(track, max(0, min(found, track.prompt_tokens)))
            track.expected_tokens = min(self.lengths.predicted(track.group)[0], track.max_tokens)
        view, group = track.view, self.accounting.group_of(track)
        self.batch.admit(request, track, self._lanes.of(view.tenant), counts[name], group)

    def _note_late_tokens(self, now_s: float) -> None:
        for name, (request, seen) in self._late.items():
            track = self.accounting.tracks.get(name)
            if track is None or request.num_output_tokens <= seen:
                continue
            self._late[name] = request, request.num_output_tokens
            track.begin_answer(now_s)
            if track.last_token_s:
                gap_s, group = now_s - track.last_token_s, self.accounting.group_of(track)
                self.accounting.latencies.observe("inter_token_seconds", group, gap_s)
            track.last_token_s = now_s

    def _measured(self, shape: StepShape, seconds: float) -> None:
        self.steps += 1
        self.last_step_s = seconds
        if shape.decodes and not shape.prefill_tokens:
            self._decode_shape = shape
            if self.cost.samples > 512 and self.steps % _LEARN_EVERY:
                return
        self.cost.learn(shape, seconds)

    def _end_served(self, now_s: float) -> None:
        served, self._served = self._served, []
        for request_id, finish in served:
            if track := self.accounting.tracks.get(request_id):
                track.begin_answer(now_s)
                track.last_token_s = now_s
                self.lengths.learn(track.group, track.earlier_tokens + track.output_tokens)
            self.accounting.leave(request_id, finish, now_s)
