"""What would the engine do? vLLM's real scheduler in virtual time.

Scheduler, KV-cache manager and hook are the real ones; only running the model is
replaced by the profile's cost model and residuals. Deterministic. Used by evals.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from serving.contracts import (
    Ack,
    Arrival,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    Finish,
    JournalPage,
    Outcome,
    Parts,
    ResidentPage,
    Snapshot,
    TraceRequest,
)
from serving.contracts.settings import EngineSettings
from serving.engines.gaps import BINS, NEVER, bin_of
from serving.engines.offered import as_the_trace_says, longest_answer, promised_to, track_of
from serving.engines.profile import EngineProfile
from serving.engines.resumed import Begun, request_arguments
from serving.engines.step_noise import step_factors
from serving.engines.tickers import Ticker, Tickers
from serving.engines.virtual_resume import hold_prefix, put_back
from serving.engines.virtual_vllm import (
    STOP_TOKEN,
    TOKEN,
    VirtualRequests,
    build_scheduler,
    skip_idle_allocations,
    skip_model_input,
)
from serving.hook.hook import SchedulerHook
from serving.hook.shedding import Shedding
from serving.perception.accounting import RequestTrack
from serving.perception.attributes import slo_of
from serving.perception.cost_model import CostModel, step_shape
from serving.policies.base import seconds
from serving.scheduler import HMASScheduler


class SimulatedEngine:
    """An engine in virtual time; one workload per instance.

    It starts empty, or with `resume` from the requests that another engine holds.

    Args:
        profile: the machine to imitate.
        settings: as the live hook reads them at start-up.
        stock: run vLLM's own AsyncScheduler, unmodified, instead of the hook.
        by_priority: vLLM's `--scheduling-policy priority`.

    Attributes:
        recomputed_tokens: computed tokens that preemptions threw away, stock or hooked.
        gaps_of_s, gap_counts: as of the compiled engine.
    """

    def __init__(
        self, profile: EngineProfile, settings: EngineSettings, *, stock: bool = False,
        by_priority: bool = False,
    ) -> None:  # fmt: skip
        settings = settings.under(as_the_trace_says(settings.contract))
        self.profile, self.settings = profile, settings
        self.scheduler = build_scheduler(
            AsyncScheduler if stock else HMASScheduler, profile, settings, by_priority
        )
        skip_idle_allocations(self.scheduler)
        skip_model_input(self.scheduler)
        self._now_s = 0.0
        self._factors, self._timed = step_factors(profile), 0
        self._tracks: dict[str, RequestTrack] = {}
        self._true_tokens: dict[str, int] = {}
        self._requests = VirtualRequests(profile)
        self._outcomes: dict[str, Outcome] = {}
        self._awaited: set[str] = set()
        self._begun = 0
        self.recomputed_tokens = 0
        self.gaps_of_s, self.gap_counts = NEVER, np.zeros(BINS, np.int64)
        self._shedding = Shedding(settings.contract.sheddable)
        self._preempt = self.scheduler._preempt_request
        self.scheduler._preempt_request = self._count_preemption  # then vLLM preempts
        if not stock:
            self.scheduler.clock = self.now
            self.scheduler.started_s = 0.0
            # The controller is not told the truth: it starts from the profile's figures
            # as a live engine starts from its saved ones, and learns from steps.
            self.scheduler.start_from(CostModel(profile.cost))

    # -- the Engine protocol --------------------------------------------------------

    def now(self) -> float:
        """Virtual seconds since the workload began."""
        return self._now_s

    def snapshot(self) -> Snapshot:
        """The state between two steps."""
        snapshot: Snapshot = self.scheduler.hmas_snapshot()
        return snapshot

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force."""
        ack: Ack = self.scheduler.hmas_apply(decision)
        return ack

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Extend a lease."""
        ack: Ack = self.scheduler.hmas_renew(controller_id, ttl_s, parts)
        return ack

    def release(self, controller_id: str) -> Ack:
        """Give a lease back."""
        ack: Ack = self.scheduler.hmas_release(controller_id)
        return ack

    def stop(self, by: str, reason: str = "") -> Ack:
        """The kill switch."""
        ack: Ack = self.scheduler.hmas_stop(by, reason)
        return ack

    def start(self, by: str) -> Ack:
        """Let decisions in again."""
        ack: Ack = self.scheduler.hmas_start(by)
        return ack

    def contract(self) -> ContractInForce:
        """The contract in force."""
        held: ContractInForce = self.scheduler.hmas_contract()
        return held

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force."""
        change = replace(change, contract=as_the_trace_says(change.contract))
        ack: ContractAck = self.scheduler.hmas_apply_contract(change)
        if ack.accepted and not change.check_only:
            self.settings = self.settings.under(change.contract)
            self._shedding = Shedding(change.contract.sheddable)
        return ack

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """Arrivals and outcomes from `cursor` on."""
        page: JournalPage = self.scheduler.hmas_journal(cursor, limit)
        return page

    def inside(self, limit: int = 5000) -> ResidentPage:
        """The requests inside, between two steps."""
        page: ResidentPage = self.scheduler.hmas_inside(limit)
        return page

    # -- starting from another engine's state ---------------------------------------------

    def learn_lengths(self, served: Iterable[tuple[str, int, int, int]]) -> None:
        """Let the hook's length model learn from answers that another engine has served.

        Without effect on stock vLLM. Before `resume`, which predicts with it.

        Args:
            served: (tenant, prompt_tokens, max_tokens, output_tokens), oldest first. A
                `TraceRequest` is found in the same histogram if it has its own `max_tokens`.
        """
        if isinstance(self.scheduler, SchedulerHook):
            lengths = self.scheduler.observer.lengths
            for tenant, prompt_tokens, max_tokens, output_tokens in served:
                group = lengths.group(tenant, prompt_tokens, max_tokens)
                lengths.learn(group, output_tokens)

    def resume(self, begun: Sequence[Begun], prefill_s_per_token: float = 0.0) -> None:
        """Hold these requests at second 0, as the engine did that they come from.

        Before `run`, and after the decision that is to be in force, so that each finds its
        place in the queue once. Request i is called `b{i}`; see `resumed_outcomes`.

        Args:
            begun: running ones first, as in an `ResidentPage`.
            prefill_s_per_token: as the page says; 0 where nobody has measured it.

        Raises:
            ValueError: the engine holds requests, or has served some.
        """
        if self._tracks or self._outcomes or self._now_s > 0.0:
            raise ValueError("resume() comes once and before run(): take a new SimulatedEngine")
        self._begun = len(begun)
        inside = []
        for i, one in enumerate(begun):
            name, known = f"b{i}", one.inside
            self._tracks[name] = one.track(name)
            if known.prompt_tokens + 1 >= self.profile.max_model_len:
                self._leave(name, "rejected")
                continue
            self._true_tokens[name] = one.output_tokens
            request = self._requests.build(
                name, known.arrival_s, known.prompt_tokens, known.max_tokens, known.priority,
                one.arguments(self.settings), one.output_tokens,
                known.prefix,
            )  # fmt: skip
            inside.append((known, request))
        put_back(self.scheduler, inside, prefill_s_per_token)

    @property
    def resumed_outcomes(self) -> list[Outcome]:
        """After `run`: one outcome for each request that `resume` was given, in order.

        Measured from the true arrival; `policy` and `epoch` are empty where another engine
        admitted the request.
        """
        return [self._outcomes[f"b{i}"] for i in range(self._begun)]

    # -- running a workload -----------------------------------------------------------

    def run(
        self,
        requests: Sequence[TraceRequest],
        tickers: Sequence[Ticker] = (),
        until_s: float | None = None,
        on_progress: Callable[[int], None] | None = None,
        on_step: Callable[[SchedulerOutput], None] | None = None,
        until_left: Collection[str] = (),
    ) -> list[Outcome]:
        """Serve `requests` (sorted by arrival) and return one outcome for each, in order.

        Outcomes are measured from the scheduler's outputs, as a client would see them,
        by the same code for stock and hooked schedulers.

        Args:
            requests: the workload; request i is called `r{i}`. One that does not say how
                long an answer it allows allows the workload's longest.
            tickers: (period_s, callback) pairs, called on virtual time between steps.
            until_s: stop there; requests still inside are `unfinished` and missed.
            on_progress: told the number of finished requests after each step.
            on_step: shown each step's schedule.
            until_left: stop as soon as these requests, by name, have left.
        """
        longest = longest_answer(requests)
        allowed = [r.max_tokens or longest for r in requests]
        self._awaited = set(until_left) - self._outcomes.keys()
        ticking = Tickers(tickers)
        arriving = 0
        while until_s is None or self._now_s < until_s:
            if until_left and not self._awaited:
                break
            while arriving < len(requests) and requests[arriving].arrival_s <= self._now_s:
                self._submit(arriving, requests[arriving], allowed[arriving])
                arriving += 1
            ticking.call_due(self._now_s)
            if self._step(on_step):
                if on_progress is not None:
                    on_progress(len(self._outcomes))
            elif arriving < len(requests):
                self._now_s = min([requests[arriving].arrival_s, *ticking.due_s])
            elif self._tracks:  # waiting for a lease to end or a limit to change
                self._now_s = min(ticking.due_s, default=self._now_s + 1.0)
            else:
                break
        for request_id in list(self._tracks):
            self._leave(request_id, "unfinished")
        for i in range(arriving, len(requests)):  # the end came before they did
            self._track(i, requests[i], allowed[i])
            self._leave(f"r{i}", "unfinished")
        return [self._outcomes[f"r{i}"] for i in range(len(requests))]

    def _submit(self, index: int, offered: TraceRequest, max_tokens: int) -> None:
        self._track(index, offered, max_tokens)
        if offered.prompt_tokens + 1 >= self.profile.max_model_len:
            self._leave(f"r{index}", "rejected")
            return
        if self._is_shed(index, offered, max_tokens):
            self._leave(f"r{index}", "rejected")
            return
        self._true_tokens[f"r{index}"] = offered.output_tokens
        request = self._requests.build(
            f"r{index}", offered.arrival_s, offered.prompt_tokens, max_tokens, offered.priority,
            request_arguments(offered, self.settings), offered.output_tokens, offered.prefix,
        )  # fmt: skip
        hold_prefix(self.scheduler, request, offered.cached_tokens)
        self.scheduler.add_request(request)

    def _is_shed(self, index: int, offered: TraceRequest, max_tokens: int) -> bool:
        # As the API server does it, but for the second by which its share may be behind.
        scheduler, settings = self.scheduler, self.settings
        if not isinstance(scheduler, SchedulerHook):
            return False
        arguments = request_arguments(offered, settings)
        slo_class, slo = slo_of(arguments, settings, offered.tenant)
        if not self._shedding.refuses(slo_class, scheduler.hmas_shed()):
            return False
        refused = Arrival(
            0, f"r{index}", offered.arrival_s, offered.tenant, slo_class, slo,
            offered.prompt_tokens, max_tokens, offered.priority,
        )  # fmt: skip
        scheduler.hmas_refused([refused])
        return True

    def _step(self, on_step: Callable[[SchedulerOutput], None] | None) -> bool:
        """One step of virtual time; False when there was nothing to compute."""
        scheduler = self.scheduler
        if not scheduler.has_requests():
            return False
        output = scheduler.schedule()
        if on_step is not None:
            on_step(output)
        for new in output.scheduled_new_reqs:
            track = self._tracks[new.req_id]
            if track.admitted_s is not None:  # a vLLM that lists resumed ones as new
                continue
            track.admitted_s = self._now_s
            track.cached_tokens = min(new.num_computed_tokens, track.prompt_tokens)
            if isinstance(scheduler, SchedulerHook):
                track.policy, track.epoch = scheduler.queue.policy.name, scheduler.lease.epoch
        request_ids = list(output.num_scheduled_tokens)
        if request_ids:
            shape = step_shape(output.num_scheduled_tokens, scheduler.requests)
            took_s = shape.seconds(self.profile.cost)
            if len(self._factors):
                took_s *= float(self._factors[self._timed % len(self._factors)])
            self._timed += 1
            self._now_s += took_s
        sampled = self._sample(request_ids)
        index = dict(zip(request_ids, range(len(request_ids)), strict=True))
        result = ModelRunnerOutput(
            req_ids=request_ids, req_id_to_index=index, sampled_token_ids=sampled
        )
        tracks, now_s = self._tracks, self._now_s
        for client in scheduler.update_from_output(output, result).values():
            for item in client.outputs:
                if item.new_token_ids:
                    self._note_gap(tracks[item.request_id])
                    tracks[item.request_id].on_tokens(len(item.new_token_ids), now_s)
                if item.finish_reason is not None:
                    reason = str(item.finish_reason)
                    self._leave(item.request_id, "stop" if reason == "stop" else "length")
        return bool(request_ids)

    def _note_gap(self, track: RequestTrack) -> None:
        if track.last_token_s == 0.0:  # its first here
            return
        gap_s = self._now_s - track.last_token_s
        track.late_gaps += gap_s > seconds(track.view.slo.itl_ms)
        if self.gaps_of_s[0] <= track.view.arrival_s <= self.gaps_of_s[1]:
            self.gap_counts[bin_of(gap_s)] += 1

    def _count_preemption(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self.recomputed_tokens += request.num_computed_tokens
        self._tracks[request.request_id].preemptions += 1
        self._preempt(request, *args, **kwargs)

    def _sample(self, request_ids: list[str]) -> list[list[int]]:
        # Each token of the workload passes here: no call per request.
        requests, tracks, true_tokens = self.scheduler.requests, self._tracks, self._true_tokens
        return [
            [] if requests[name].is_prefill_chunk
            else [STOP_TOKEN if tracks[name].output_tokens + 1 >= true_tokens[name] else TOKEN]
            for name in request_ids
        ]  # fmt: skip

    def _track(self, index: int, offered: TraceRequest, max_tokens: int) -> None:
        promised = promised_to(offered, self.settings)
        self._tracks[f"r{index}"] = track_of(index, offered, max_tokens, promised)

    def _leave(self, request_id: str, finish: Finish) -> None:
        track = self._tracks.pop(request_id)
        self._outcomes[request_id] = track.outcome(int(request_id[1:]), finish, self._now_s)
        self._awaited.discard(request_id)
