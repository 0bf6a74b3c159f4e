"""What does the scheduler hook know about each request, and learn from each step?

Classifies arrivals, follows requests through steps, and feeds the cost model, the
length model and the accounting. Called by `SchedulerHook` only.
"""

import math
from collections import deque
from collections.abc import Callable, Collection
from functools import cache
from itertools import islice
from operator import attrgetter
from typing import Any

import numpy as np
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request

from serving.contracts import SLO, Finish, ResidentRequest
from serving.contracts.settings import EngineSettings
from serving.core import batch, calls, control
from serving.core.state import Core
from serving.perception.accounting import BEHIND, Accounting, RequestTrack
from serving.perception.attributes import slo_of, tenant_of
from serving.perception.cost_model import CostModel
from serving.perception.lanes import Lanes
from serving.perception.length_model import LengthModel
from serving.policies import RequestView
from serving.policies.base import seconds

_FINISHES: dict[str, Finish] = {
    "stop": "stop", "repetition": "stop", "length": "length", "abort": "aborted",
}  # fmt: skip
_SERVED = ("stop", "length")
# `num_output_tokens` is a property, and takes three times as long for a whole batch.
_answer = attrgetter("_output_token_ids")
_NO_TOKENS = np.zeros(0, np.int64)
_NO_STEP = -math.inf, calls.NO_SHAPE
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
        step_in_flight: when the last step began, and its shape (async scheduling runs one ahead).
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
        self._in_flight: deque[tuple[SchedulerOutput, calls.Shape, float, bool]] = deque()
        self.step_in_flight = _NO_STEP
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
        cached, lane = self._cached_tokens(request), self._lanes.enter(tenant)
        row = self._lanes.rows.open(request)
        weight = settings.contract.weight_of(tenant, slo_class)
        targets_s = (
            seconds(slo.ttft_ms), seconds(slo.tpot_ms), seconds(slo.e2e_ms), seconds(slo.itl_ms)
        )  # fmt: skip
        deadline_s, expected, q90 = calls.arrive(
            self._lanes.rows.at, row, request.arrival_time, float(request.priority), weight,
            targets_s, lane.row, request.num_prompt_tokens, cached, request.max_tokens,
            lora is not None, self.lengths.at, self.lengths.key(group),
        )  # fmt: skip
        view = RequestView(
            request_id=request.request_id, tenant=tenant, slo_class=slo_class, slo=slo,
            arrival_s=request.arrival_time, deadline_s=deadline_s,
            prompt_tokens=request.num_prompt_tokens - cached, priority=request.priority,
            weight=weight, predicted_output_tokens=expected, q90_output_tokens=q90,
            cached_tokens=cached,
        )  # fmt: skip
        track = RequestTrack(
            view, request.max_tokens, group, request.num_prompt_tokens, cached,
            self._prefix_ids(request),
        )  # fmt: skip
        self.accounting.arrive(track)
        self.core.requests["histogram"][row] = track.histogram
        self._just_looked_up = "" if request.num_output_tokens else request.request_id

    def promise(self, settings: EngineSettings) -> None:
        """Go by another contract from now on; who is inside keeps its class and targets."""
        self.settings, self.accounting.listed = settings, frozenset(settings.contract.tenants)
        self._lanes.follow(settings.contract)

    def weights(self) -> tuple[list[int], list[float]]:
        """Rows of the requests inside, and what each counts for by the contract in force."""
        rows, weight_of = self._lanes.rows.by_name, self.settings.contract.weight_of
        tracks = self.accounting.tracks.items()
        views = {rows[name]: track.view for name, track in tracks if name in rows}
        return list(views), [weight_of(one.tenant, one.slo_class) for one in views.values()]

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
            one["seen_tokens"][row] = known.output_tokens

    def prefill_s_per_token(self) -> float:
        """Seconds per prompt token while prompts fill the steps, decodes included."""
        return float(control.prefill_rate(self.core))

    def decode_s_per_token(self) -> float:
        """Engine seconds that one more output token costs in a step that runs anyway, tau."""
        return float(control.decode_rate(self.core))

    def scheduled(
        self, output: SchedulerOutput, requests: dict[str, Request], now_s: float, policy: str,
        epoch: int,
    ) -> None:  # fmt: skip
        """Note what a step is to compute, and which requests it admitted under which epoch."""
        counts = output.num_scheduled_tokens
        if not counts:
            return
        begun, known, count, tokens = _begun(output), True, len(counts), _NO_TOKENS
        more = output.total_num_scheduled_tokens - count  # than one token each
        for name in begun:
            known &= self._admitted(name, counts[name], requests[name], now_s, policy, epoch)
            more -= counts[name] - 1
        if more:  # a prompt goes on that has begun before, or vLLM speculates
            tokens = np.fromiter(counts.values(), np.int64, count)
        noted, shape, full = False, calls.NO_SHAPE, False
        if known:
            noted, shape, full = calls.note_scheduled(
                self._lanes.rows.at, count, len(begun), tokens, self._pipelined
            )
        if not noted:  # the budget is used up, or some were preempted
            by_name = self._lanes.rows.by_name
            rows = np.fromiter(map(by_name.__getitem__, counts), np.int64, count)
            tokens = np.fromiter(counts.values(), np.int64, count)
            prefill_tokens, decodes, context, square, full = batch.note_scheduled(
                self.core, rows, tokens, self._pipelined
            )
            shape = prefill_tokens, decodes, context, square
        self._in_flight.append((output, shape, now_s, full))
        self.step_in_flight = now_s, shape

    def preempted(self, request: Request) -> None:
        """A running request lost its KV blocks and starts over."""
        self.preemptions += 1
        self.recomputed_tokens += request.num_computed_tokens
        row = self._lanes.rows.by_name[request.request_id]
        if request.num_output_placeholders > 0:
            self._late[request.request_id] = request, request.num_output_tokens
        batch.remove(self.core, row)
        if track := self.track(request):
            track.preemptions += 1

    def paused(self, request: Request, now_s: float) -> None:
        """A streaming-input session has answered and waits for more: it leaves the batch."""
        row = self._lanes.rows.by_name[request.request_id]
        batch.remove(self.core, row)
        self._late.pop(request.request_id, None)
        if track := self.track(request):
            first_s = float(self.core.requests["first_token_s"][row])
            if first_s < math.inf:
                track.begin_answer(first_s)
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
                took_s = now_s - max(began_s, self._last_output_s)
                calls.learn_step(self._lanes.rows.at, shape, took_s, full)
                break
        if not self._in_flight:
            self.step_in_flight = _NO_STEP
        self._last_output_s = now_s
        if self._late:
            self._note_late_tokens(now_s)
        if scheduler_output.num_scheduled_tokens:
            self._note_tokens(running, now_s)
        if self._served:
            self._end_served(now_s)

    def leaving(self, request: Request, now_s: float) -> None:
        """A request is being freed; a served one ends with the step that is being reported."""
        name = request.request_id
        finish = _finish_of(request.get_finished_reason())
        paused = name in self._between_answers
        self._between_answers.discard(name)
        self._late.pop(name, None)
        track, row = self.track(request), self._lanes.rows.by_name.get(name)
        if track is None or row is None:
            if row is not None:
                batch.remove(self.core, row)
            self._lanes.rows.close(name)
            return
        first_s, last_token_s, track.late_gaps, behind_s = calls.leave(self._lanes.rows.at, row)
        if finish in _SERVED and last_token_s < math.inf:
            gap_s, latencies = now_s - last_token_s, self.accounting.latencies
            latencies.observe("inter_token_seconds", track.histogram, gap_s)
            track.late_gaps += gap_s > seconds(track.view.slo.itl_ms)
        if first_s < math.inf:
            track.begin_answer(first_s)
        for behind, after_s in zip(BEHIND, behind_s, strict=True):
            if not math.isnan(after_s):
                track.deprioritised[behind] = after_s
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

    def _admitted(
        self, name: str, tokens: int, request: Request, now_s: float, policy: str, epoch: int
    ) -> bool:
        """Whether the core did not have it in the batch, and has it now."""
        self._late.pop(name, None)
        track = self.accounting.tracks.get(name)
        if track is None:
            return False
        self._between_answers.discard(name)
        before = request.num_computed_tokens - tokens
        if track.admitted_s is None:
            track.admitted_s, track.policy, track.epoch = now_s, policy, epoch
            self.accounting.admit(track, max(0, min(before, track.prompt_tokens)))
        rows = self._lanes.rows
        return calls.admit(  # a session's prompt has grown
            rows.at, rows.by_name[name], request.num_prompt_tokens, request.num_output_tokens,
            before, tokens, self.lengths.at, self.lengths.key(track.group),
        )  # fmt: skip

    def _note_tokens(self, running: list[Request], now_s: float) -> None:
        rows = self._lanes.rows
        produced = np.fromiter(map(len, map(_answer, running)), np.int64, len(running))
        gaps = self.accounting.latencies.arrays("inter_token_seconds")
        if not calls.note_tokens(rows.at, produced, now_s, *gaps):
            rows.see_running(running)
            calls.note_tokens(rows.at, produced, now_s, *gaps)

    def _note_late_tokens(self, now_s: float) -> None:
        one = self.core.requests
        for name, (request, seen) in self._late.items():
            track, row = self.accounting.tracks.get(name), self._lanes.rows.by_name.get(name)
            if track is None or row is None or request.num_output_tokens <= seen:
                continue
            self._late[name] = request, request.num_output_tokens
            gap_s = now_s - float(one["last_token_s"][row])
            if gap_s > -math.inf:
                latencies = self.accounting.latencies
                latencies.observe("inter_token_seconds", track.histogram, gap_s)
                one["late_gaps"][row] += gap_s > one["itl_s"][row]
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


@cache
def _finish_of(reason: Any) -> Finish:
    return _FINISHES.get(str(reason), "error")


def _begun(output: SchedulerOutput) -> list[str]:
    """Requests that a step admitted, in the order of its requests."""
    counts, began = output.num_scheduled_tokens, [one.req_id for one in output.scheduled_new_reqs]
    began += output.scheduled_cached_reqs.resumed_req_ids
    if len(began) < 2:
        return began
    # vLLM serves what runs first, so what has begun comes last, in the order of its start.
    last = list(islice(reversed(counts), len(began)))[::-1]
    if last == began or set(last) == set(began):
        return last
    return [name for name in counts if name in began]
