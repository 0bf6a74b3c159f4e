"""What does the scheduler hook know about each request, and learn from each step?

Classifies arrivals, follows requests through steps, and feeds the cost model, the
length model and the accounting. Called by `SchedulerHook` only.
"""

import math
from collections import deque
from collections.abc import Callable, Collection
from itertools import islice
from operator import attrgetter

import numpy as np
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request

from serving.contracts import SLO, Finish, ResidentRequest
from serving.contracts.settings import EngineSettings
from serving.core import batch, control
from serving.core.state import Core
from serving.perception.accounting import BEHIND, Accounting, RequestTrack
from serving.perception.attributes import slo_of, tenant_of
from serving.perception.cost_model import CostModel, StepShape
from serving.perception.lanes import Lanes
from serving.perception.length_model import LengthModel
from serving.policies import RequestView
from serving.policies.base import seconds

_FINISHES: dict[str, Finish] = {
    "stop": "stop", "repetition": "stop", "length": "length", "abort": "aborted",
}  # fmt: skip
_SERVED = ("stop", "length")
_produced = attrgetter("num_output_tokens")
_FULL_TOKENS = 10_000.0  # that a figure taken over counts for: a few dozen steps' worth


class Observer:
    """Per-request knowledge and online models of one engine core.

    Args:
        settings: of the engine.
        lanes: the tenants' lanes; the observer counts the requests inside and the decodes.
        cached_tokens: prompt tokens of a request that the KV cache holds now.
        prefix_ids: what its prompt begins with, as `Arrival.prefix`.

    Attributes:
        settings: with the contract in force.
        lengths: predicts the length of answers.
        ended: requests that are aborted now because their answers are complete.
    """

    def __init__(
        self,
        settings: EngineSettings,
        lanes: Lanes,
        cached_tokens: Callable[[Request], int],
        prefix_ids: Callable[[Request], tuple[int, ...]],
        *,
        pipelined: bool,
    ) -> None:
        self.accounting = Accounting(settings.journal_size, settings.max_tenants)
        self.lengths = LengthModel()
        self.preemptions = self.recomputed_tokens = 0
        self._lanes, self._cached_tokens, self._prefix_ids = lanes, cached_tokens, prefix_ids
        self._pipelined = pipelined
        self.start_from(CostModel())
        self.promise(settings)
        self._in_flight: deque[tuple[SchedulerOutput, StepShape, float, bool]] = deque()
        self._last_output_s = 0.0
        self._just_looked_up = ""  # a request that arrived a moment ago
        self._served: list[tuple[str, Finish]] = []  # their last step is being reported
        self._between_answers: set[str] = set()  # sessions that wait for their client
        # Preempted with a token in flight, which vLLM still delivers; and the tokens seen.
        self._late: dict[str, tuple[Request, int]] = {}
        self.ended: frozenset[str] = frozenset()

    @property
    def core(self) -> Core:
        """The arrays."""
        return self._lanes.core

    def start_from(self, cost: CostModel) -> None:
        """Begin with this cost model, which learns from the steps to come."""
        self.cost = cost
        self._lanes.rows.core = self.core._replace(cost=self.cost.array)

    def arrive(self, request: Request) -> None:
        """Classify a new request and start following it."""
        settings, params = self.settings, request.sampling_params
        extra = (params.extra_args if params is not None else None) or {}
        lora = request.lora_request.lora_name if request.lora_request else None
        tenant = tenant_of(extra, lora, settings)
        slo_class, slo = slo_of(extra, settings, tenant)
        group = self.lengths.group(tenant, request.num_prompt_tokens, request.max_tokens)
        mean, q90 = self.lengths.predicted(group)
        cached, lane = self._cached_tokens(request), self._lanes.enter(tenant)
        row = self._lanes.rows.open(request)
        core, one = self.core, self.core.requests
        one["arrival_s"][row], one["priority"][row] = request.arrival_time, request.priority
        one["ttft_s"][row], one["tpot_s"][row] = seconds(slo.ttft_ms), seconds(slo.tpot_ms)
        one["e2e_s"][row], one["tenant"][row] = seconds(slo.e2e_ms), lane.row
        one["whole_prompt_tokens"][row] = request.num_prompt_tokens
        one["cached_tokens"][row], one["max_tokens"][row] = cached, request.max_tokens
        one["lora"][row] = request.lora_request is not None
        batch.arrive(core, row, mean, q90)
        expected = float(one["expected_tokens"][row])
        view = RequestView(
            request_id=request.request_id, tenant=tenant, slo_class=slo_class, slo=slo,
            arrival_s=request.arrival_time, deadline_s=float(one["deadline_s"][row]),
            prompt_tokens=request.num_prompt_tokens - cached, priority=request.priority,
            weight=lane.weight, predicted_output_tokens=expected,
            q90_output_tokens=float(one["q90_output_tokens"][row]), cached_tokens=cached,
        )  # fmt: skip
        track = RequestTrack(
            view, request.max_tokens, group, request.num_prompt_tokens, cached,
            self._prefix_ids(request),
        )  # fmt: skip
        self.accounting.arrive(track)
        one["histogram"][row] = self.accounting.group_of(track)
        self._just_looked_up = "" if request.num_output_tokens else request.request_id

    def promise(self, settings: EngineSettings) -> None:
        """Go by another contract from now on; who is inside keeps what it came with."""
        self.settings, self.accounting.listed = settings, frozenset(settings.contract.tenants)
        self._lanes.follow(settings.contract)

    def track(self, request: Request) -> RequestTrack | None:
        """What is known of a request; None if its classification failed."""
        return self.accounting.tracks.get(request.request_id)

    def now_known(self, request: Request) -> tuple[int, float | None]:
        """Cached tokens as last looked up, and when the first token came, of one that is inside."""
        row, one = self._lanes.rows.by_name[request.request_id], self.core.requests
        track, first_s = self.track(request), float(one["first_token_s"][row])
        if track is not None and track.first_token_s is not None:
            first_s = track.first_token_s  # of a session's first answer
        return int(one["cached_tokens"][row]), first_s if first_s < math.inf else None

    def of_classes(self, rows: np.ndarray, classes: Collection[str]) -> np.ndarray:
        """Which of these requests are of one of the SLO classes."""
        requests = self._lanes.rows.requests
        found = (self.view_of(requests[row]).slo_class in classes for row in rows.tolist())
        return np.fromiter(found, bool, len(rows))

    def view_of(self, request: Request) -> RequestView:
        """The policies' view of a request; one that could not be classified has no SLO."""
        if track := self.track(request):
            return track.view
        return RequestView(
            request.request_id, "default", "best_effort", SLO(), request.arrival_time,
            float("inf"), request.num_prompt_tokens,
        )  # fmt: skip

    def follow(self, request: Request, row: int) -> None:
        """A request is queued again, or waits: see what is cached and attained now."""
        just_looked_up, self._just_looked_up = self._just_looked_up, ""
        if request.request_id == just_looked_up or self.track(request) is None:
            return
        one, tokens = self.core.requests, request.num_output_tokens
        one["output_tokens"][row] = tokens
        one["whole_prompt_tokens"][row] = request.num_tokens - tokens  # a session's prompt grows
        batch.refresh(self.core, row, self._cached_tokens(request))
        if request.request_id in self._late:
            one["attained_tokens"][row] = max(1, tokens)  # its first token is on its way

    def take_over(self, last_step_s: float, prefill_s_per_token: float) -> None:
        """Begin with what another engine has measured; 0 s per token is unknown."""
        engine = self.core.engine
        engine["last_step_s"] = last_step_s
        if prefill_s_per_token > 0.0:
            engine["full_s"] = prefill_s_per_token * _FULL_TOKENS
            engine["full_tokens"] = _FULL_TOKENS

    def take_back(
        self, request: Request, known: ResidentRequest, *, decodes: bool | None = None
    ) -> None:
        """A request has arrived that another engine held before.

        `decodes`: it runs, and whether its prompt is computed; None: it waits.
        """
        track = self.track(request)
        if track is None:
            return
        track.remember(known)
        row, one = self._lanes.rows.by_name[request.request_id], self.core.requests
        one["admitted"][row] = known.admitted_s is not None
        if known.first_token_s is not None:
            one["first_token_s"][row] = known.first_token_s
        if decodes is not None:
            self._just_looked_up = ""  # it runs: when it is queued, that will be another time
            one["output_tokens"][row] = request.num_output_tokens
            one["computed_tokens"][row] = request.num_computed_tokens
            batch.admit(self.core, row, float(one["expected_tokens"][row]))
        if decodes:
            batch.begin_decoding(self.core, row)

    def prefill_s_per_token(self) -> float:
        """Seconds per prompt token while prompts fill the steps, decodes included."""
        return float(control.prefill_rate(self.core))

    def decode_s_per_token(self) -> float:
        """Engine seconds that one more output token costs in a step that runs anyway, tau."""
        return float(control.decode_rate(self.core))

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
        resumed = output.scheduled_cached_reqs.resumed_req_ids
        began = {new.req_id for new in output.scheduled_new_reqs} | set(resumed)
        # vLLM serves what runs first, so what has begun comes last, in the order of its start.
        names = list(islice(reversed(counts), len(began)))[::-1]
        if began != set(names):
            names = [name for name in counts if name in began]
        served = self._served_rows()
        for name in names:
            self._admitted(name, counts, requests, now_s, policy, epoch)
        by_name = self._lanes.rows.by_name
        if len(served) + len(names) == len(counts) and all(map(by_name.__contains__, names)):
            rows = np.concatenate([served, [by_name[name] for name in names]]).astype(np.int64)
        else:  # the budget is used up, or some were preempted
            rows = np.fromiter(map(by_name.__getitem__, counts), np.int64, len(counts))
        tokens = np.fromiter(counts.values(), np.int64, len(counts))
        *figures, full = batch.note_scheduled(self.core, rows, tokens, self._pipelined)
        self._in_flight.append((output, StepShape(*figures), now_s, bool(full)))

    def _served_rows(self) -> np.ndarray:
        """Rows of those that vLLM found running in this step: what is hidden it did not."""
        core, engine = self.core, self.core.engine
        running: np.ndarray = core.running[: engine["running"][0]]
        if engine["yielding"][0] + engine["resting"][0]:
            running = running[core.requests["hidden"][running] == 0]
        return running

    def preempted(self, request: Request, now_s: float) -> None:
        """A running request lost its KV blocks and starts over."""
        self.preemptions += 1
        self.recomputed_tokens += request.num_computed_tokens
        row = self._lanes.rows.by_name[request.request_id]
        if request.num_output_placeholders > 0:
            self._late[request.request_id] = request, request.num_output_tokens
        batch.preempt(self.core, row, now_s)
        if track := self.track(request):
            track.preemptions += 1

    def paused(self, request: Request, now_s: float) -> None:
        """A streaming-input session has answered and waits for more: it leaves the batch."""
        row = self._lanes.rows.by_name[request.request_id]
        batch.remove(self.core, row)
        self._late.pop(request.request_id, None)
        if track := self.track(request):
            self._see_answer(track, row)
            track.end_answer(request.num_output_tokens, now_s)
            self._between_answers.add(request.request_id)
        one = self.core.requests
        one["first_token_s"][row] = one["last_token_s"][row] = math.inf

    def completed(
        self, scheduler_output: SchedulerOutput, running: list[Request], now_s: float
    ) -> None:
        """Learn from a finished step: its duration, and the tokens it produced."""
        while self._in_flight and scheduler_output.num_scheduled_tokens:
            output, shape, began_s, full = self._in_flight.popleft()
            if output is scheduler_output:
                batch.learn_step(
                    self.core, shape.prefill_tokens, shape.decodes, shape.decode_context,
                    shape.prefill_square, now_s - max(began_s, self._last_output_s), full,
                )  # fmt: skip
                break
        self._last_output_s = now_s
        self._note_late_tokens(now_s)
        if scheduler_output.num_scheduled_tokens:
            self._note_tokens(running, now_s)
        if self._served:
            self._end_served(now_s)

    def leaving(self, request: Request, now_s: float) -> None:
        """A request is being freed; a served one ends with the step that is being reported."""
        name = request.request_id
        finish = _FINISHES.get(str(request.get_finished_reason()), "error")
        paused = name in self._between_answers
        self._between_answers.discard(name)
        self._late.pop(name, None)
        track, row = self.track(request), self._lanes.rows.by_name.get(name)
        if track is None or row is None:
            if row is not None:
                batch.remove(self.core, row)
            self._lanes.rows.close(name)
            return
        last_token_s = float(self.core.requests["last_token_s"][row])
        if finish in _SERVED and last_token_s < math.inf:
            group = self.accounting.group_of(track)
            self.accounting.latencies.observe("inter_token_seconds", group, now_s - last_token_s)
        self._see_answer(track, row)
        for behind, after_s in zip(
            BEHIND, self.core.requests["deprioritised_s"][row].tolist(), strict=True
        ):
            if not math.isnan(after_s):
                track.deprioritised[behind] = after_s
        batch.leave(self.core, row)
        self._lanes.rows.close(name)
        track.output_tokens = 0 if paused else request.num_output_tokens
        track.last_token_s = self._last_output_s
        if finish == "aborted" and name in self.ended:  # its tokens were reported before
            self.lengths.learn(track.group, track.earlier_tokens + track.output_tokens)
            self.accounting.leave(name, "stop", now_s)
        elif finish in _SERVED:
            self._served.append((name, finish))
        else:
            self.accounting.leave(name, finish, now_s)

    def _see_answer(self, track: RequestTrack, row: int) -> None:
        first_s = float(self.core.requests["first_token_s"][row])
        if first_s < math.inf:
            track.begin_answer(first_s)

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
        row, one = self._lanes.rows.by_name[name], self.core.requests
        one["whole_prompt_tokens"][row] = request.num_prompt_tokens  # a session's has grown
        one["output_tokens"][row] = request.num_output_tokens
        one["computed_tokens"][row] = request.num_computed_tokens - counts[name]
        batch.admit(self.core, row, self.lengths.predicted(track.group)[0])

    def _note_tokens(self, running: list[Request], now_s: float) -> None:
        core, count, rows = self.core, len(running), self._lanes.rows.see_running(running)
        core.requests["output_tokens"][rows] = np.fromiter(map(_produced, running), int, count)
        groups, gaps_s = np.empty(count, np.int64), np.empty(count)
        gaps = batch.note_tokens(core, count, now_s, groups, gaps_s)
        if gaps:
            self.accounting.latencies.observe_all(
                "inter_token_seconds", groups[:gaps], gaps_s[:gaps]
            )

    def _note_late_tokens(self, now_s: float) -> None:
        one = self.core.requests
        for name, (request, seen) in self._late.items():
            track, row = self.accounting.tracks.get(name), self._lanes.rows.by_name.get(name)
            if track is None or row is None or request.num_output_tokens <= seen:
                continue
            self._late[name] = request, request.num_output_tokens
            gap_s = now_s - float(one["last_token_s"][row])
            if gap_s > -math.inf:
                group = self.accounting.group_of(track)
                self.accounting.latencies.observe("inter_token_seconds", group, gap_s)
            one["last_token_s"][row] = now_s
            if one["first_token_s"][row] == math.inf:
                one["first_token_s"][row] = now_s

    def _end_served(self, now_s: float) -> None:
        served, self._served = self._served, []
        for request_id, finish in served:
            if track := self.accounting.tracks.get(request_id):
                track.begin_answer(now_s)
                track.last_token_s = now_s
                self.lengths.learn(track.group, track.earlier_tokens + track.output_tokens)
            self.accounting.leave(request_id, finish, now_s)
