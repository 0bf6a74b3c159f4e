"""How do decisions act inside vLLM? The hook, mixed into one of vLLM's schedulers.

Uses only what vLLM leaves open: the waiting queue's order, the order of the running
list, and three limits, set before each step. Nothing of ours raises into a step:
after a fault vLLM goes on by its own rules; faults are counted, logged once.
`serving.scheduler` mixes it into vLLM's schedulers.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from serving import compat
from serving.contracts import (
    Ack,
    Arrival,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    Envelope,
    JournalPage,
    Limits,
    Parts,
    ResidentPage,
    Snapshot,
    Totals,
)
from serving.contracts.in_force import settings_in_force
from serving.contracts.settings import judge_change
from serving.core.warm import warm_up
from serving.hook.lease import Lease
from serving.hook.queue import PolicyQueue
from serving.hook.snapshot import build_inside, build_snapshot, build_totals
from serving.hook.step_control import StepControl
from serving.perception.cost_model import CostModel
from serving.perception.lanes import Lanes
from serving.perception.model_file import ModelFile, fingerprint, rank_path
from serving.perception.observer import Observer
from serving.policies import complete_params

if TYPE_CHECKING:  # it is mixed into one of vLLM's schedulers, and uses what they have
    from vllm.v1.core.sched.scheduler import Scheduler as _Base
else:
    _Base = object

T = TypeVar("T")
logger = logging.getLogger("vllm.hmas")
_SAVE_EVERY_S = 60.0


class SchedulerHook(_Base):
    """The policy, limits and accounting of H-MAS, before vLLM's scheduler in a class statement.

    Without a controller's lease, and with `fcfs` as its default policy, it orders and
    sizes steps exactly as stock vLLM does, also with vLLM's `--scheduling-policy priority`.
    """

    running: list[Request]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        compat.check(self)
        warm_up()
        self.settings = settings = settings_in_force(self.vllm_config.additional_config)
        self.clock: Callable[[], float] = time.time
        self.started_s = time.time()
        self.faults, self.last_fault = 0, ""
        caches = bool(self.kv_cache_manager.enable_caching)
        self._looks_up_cache = caches or self.connector is not None
        self._save_due_s = math.inf
        token_budget = self.scheduler_config.max_num_scheduled_tokens or int(
            self.scheduler_config.max_num_batched_tokens
        )
        max_active = compat.max_active(self)
        self.envelope = Envelope(
            max_active_requests=max_active,
            token_budget=token_budget,
            max_model_len=self.max_model_len,
            kv_blocks=self.kv_cache_config.num_blocks,
            block_size=self.block_size,
            sheddable=settings.contract.sheddable,
            prefix_caching=caches,
            max_wait_s=settings.max_wait_s,
            bucket_s=settings.bucket_s,
        )
        self._stock_limits = Limits(
            max_active_requests=max_active,
            token_budget=token_budget,
            long_prefill_threshold=self.scheduler_config.long_prefill_token_threshold,
        )
        name = settings.default_policy
        if name == "fcfs" and self.scheduler_config.policy == "priority":
            name = "priority"
        default = Decision("", 0, 0.0, name, complete_params(name, {}), self._stock_limits)
        self.lease = Lease(default, self.envelope)
        most_owed = 2.0 * max(self.max_model_len, 2 * self.envelope.kv_blocks * self.block_size)
        lanes = Lanes({}, {}, settings.max_tenants, settings.bucket_s, most_owed)
        self.contract = ContractInForce(0, settings.contract, settings.slo_scale)
        pipelined = self.parallel_config.pipeline_parallel_size > 1
        self.observer = Observer(
            settings, lanes, self._cached_tokens, self._prefix_ids, pipelined=pipelined
        )
        self._model_file: ModelFile | None = None
        if settings.model_file:
            self._open_model_file(settings.model_file)
        self.queue = PolicyQueue(
            self.observer.view_of, settings.max_wait_s, self._policy_fault, lanes, self._follow
        )
        self.waiting = self.queue
        self.control = StepControl(self, self.queue, self.envelope)
        self._enforce()
        for caveat in compat.caveats(self):
            logger.warning("H-MAS with %s (docs/limits.md)", caveat)

    # -- decisions: between steps, through the engine's utility RPC ---------------------

    def hmas_apply(self, decision: Decision) -> Ack:
        """Put a decision in force, or say why not."""
        ack = self.lease.accept(decision, self._now())
        if ack.accepted:
            self._enforce()
        return ack

    def hmas_renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Extend the lease of the controller that holds it; give tenants these parts."""
        ack = self.lease.renew(controller_id, ttl_s, self._now(), parts)
        if ack.accepted and parts is not None:
            self.queue.lanes.divide(parts)
        return ack

    def hmas_release(self, controller_id: str) -> Ack:
        """Give the lease back and return to the default at once."""
        ack = self.lease.release(controller_id, self._now())
        if ack.accepted:
            self._enforce()
        return ack

    def hmas_stop(self, by: str, reason: str) -> Ack:
        """The kill switch: back to the default at once, and no decision until `hmas_start`."""
        ack = self.lease.stop(by, reason, self._now())
        logger.warning("kill switch, asked by %s (%s): %s", by, reason, ack.reason)
        self._enforce()
        return ack

    def hmas_start(self, by: str) -> Ack:
        """Let decisions in again."""
        ack = self.lease.start()
        logger.warning("decisions are let in again, asked by %s: %s", by, ack.reason)
        return ack

    def hmas_contract(self) -> ContractInForce:
        """The contract in force, with the hashes of API keys."""
        return self.contract

    def hmas_apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force, or say why not. Who is inside keeps its targets."""
        ack, settings = judge_change(self.contract, change, self.observer.settings)
        if ack.accepted and not change.check_only:
            self.observer.promise(settings)
            self.queue.weigh(*self.observer.weights())
            self.envelope = replace(self.envelope, sheddable=settings.contract.sheddable)
            self.lease.envelope = self.envelope
            self.contract = replace(
                self.contract, epoch=change.epoch, contract=settings.contract,
                since_s=self._now(), by=change.by,
            )  # fmt: skip
            logger.info(
                "contract %d in force, by %s: %s", change.epoch, change.by or "unnamed",
                "; ".join(ack.changes) or "nothing changes",
            )  # fmt: skip
        return ack

    def hmas_snapshot(self) -> Snapshot:
        """The state between two steps; O(waiting)."""
        return build_snapshot(self, self._now())

    def hmas_totals(self, histograms: bool = True) -> Totals:
        """The part of the snapshot that costs little to read, histograms, and routers' hint."""
        return build_totals(self, self._now(), histograms)

    def hmas_journal(self, cursor: int, limit: int) -> JournalPage:
        """Arrivals and outcomes from `cursor` on."""
        return self.observer.accounting.page(cursor, limit)

    def hmas_inside(self, limit: int) -> ResidentPage:
        """The requests that the engine holds, at most `limit`; O(waiting + running)."""
        return build_inside(self, self._now(), limit)

    def hmas_shed(self) -> float:
        """The share of sheddable requests that is to be refused now."""
        self._now()
        return self.lease.decision.limits.shed

    def hmas_refused(self, requests: Iterable[Arrival]) -> None:
        """Note requests that were refused on this engine's behalf: misses like any other."""
        for request in requests:
            self._safely(
                "refusal", self.observer.accounting.refuse, request, self.queue.policy.name,
                self.lease.epoch,
            )  # fmt: skip

    # -- vLLM's scheduler interface -----------------------------------------------------

    def add_request(self, request: Request) -> None:
        """Classify and queue a request."""
        name = request.request_id
        if name not in self.requests:
            self._safely("arrival", self.observer.arrive, request)
        elif not request.resumable:  # a session's client has sent its last input
            self.observer.ended = frozenset((name,))
        super().add_request(request)
        self.observer.ended = frozenset()

    def finish_requests(self, request_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Requests are aborted; of some the API server says that their answers are complete."""
        request_ids, marked = compat.without_marks(request_ids)
        self.observer.ended |= marked
        finished = super().finish_requests(request_ids, *args, **kwargs)
        self.observer.ended = frozenset()
        return finished

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """One step: set limits and order, let vLLM schedule, note what it scheduled."""
        now_s, control = self.clock(), self.control
        if now_s >= self.lease.ends_s:
            self._safely("lease", self._expire, now_s)
        self._safely("step control", control.prepare, now_s, self.observer.step_in_flight)
        batch = self.running
        hidden = {r.request_id for r in control.hidden} if control.hidden else set()
        if hidden:
            self.running = [r for r in batch if r.request_id not in hidden]
        scheduled: dict[str, int] = {}
        try:
            output = super().schedule(*args, **kwargs)
            scheduled = output.num_scheduled_tokens
        finally:
            if hidden:
                self._bring_back(batch, hidden)
            self._safely("queue", self.queue.end_step, scheduled)
        self._safely(
            "observer", self.observer.scheduled, output, self.requests, now_s,
            self.queue.policy.name, self.lease.epoch,
        )  # fmt: skip
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> Any:
        """Take in a step's result; learn its duration and account its tokens."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        now_s = self.clock()
        self._safely("observer", self.observer.completed, scheduler_output, self.running, now_s)
        if now_s >= self._save_due_s:
            self._safely("model file", self._save_models, now_s)
        return outputs

    def shutdown(self) -> None:
        """Keep what was learned, then let vLLM shut down."""
        if self._model_file is not None:
            self._model_file.close(self.observer.cost, self.observer.lengths)
        super().shutdown()

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self._safely("observer", self.observer.leaving, request, self.clock())
        return super()._free_request(request, *args, **kwargs)

    def _handle_stopped_request(self, request: Request) -> bool:
        if request.resumable:  # before vLLM takes its tokens in flight back
            self._safely("observer", self.observer.paused, request, self.clock())
        return bool(super()._handle_stopped_request(request))

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self._safely("observer", self.observer.preempted, request)
        super()._preempt_request(request, *args, **kwargs)

    def _bring_back(self, batch: list[Request], hidden: set[str]) -> None:
        """Those that sat out run again, in their old places: the last is the next victim."""
        stays = hidden | {request.request_id for request in self.running}
        known = {request.request_id for request in batch}
        admitted = [r for r in self.running if r.request_id not in known]
        self.running = [r for r in batch if r.request_id in stays] + admitted

    def start_from(self, cost: CostModel) -> None:
        """Begin with these costs, before the first request."""
        self.observer.start_from(cost)
        self._enforce()

    # -- inside -------------------------------------------------------------------------

    def _now(self) -> float:
        now_s = self.clock()
        self._expire(now_s)
        return now_s

    def _expire(self, now_s: float) -> None:
        if self.lease.expire(now_s):
            logger.warning("controller's lease ended: back to %s", self.lease.decision.policy)
            self._enforce()

    def _enforce(self) -> None:
        decision = self.lease.decision
        keeps = decision is self.lease.default and self.scheduler_config.policy == "priority"
        self.queue.lanes.divide(self.lease.parts)
        self.queue.enforce(decision, self.lease.epoch, as_stock=keeps)

    def _open_model_file(self, path: str) -> None:
        own = rank_path(path, self.parallel_config.data_parallel_index)
        self._model_file = ModelFile(own, fingerprint(self.vllm_config))
        logger.info("%s", self._model_file.load(self.observer.cost, self.observer.lengths))
        self.observer.start_from(self.observer.cost)
        self._save_due_s = self.clock() + _SAVE_EVERY_S

    def _save_models(self, now_s: float) -> None:
        self._save_due_s = now_s + _SAVE_EVERY_S
        if self._model_file is not None:  # copies here, writes in a thread of its own
            self._model_file.save_soon(self.observer.cost, self.observer.lengths)

    def _follow(self, request: Request, row: int) -> None:
        # Called by the queue, which vLLM calls: what fails here must not fail there.
        self._safely("view", self.observer.follow, request, row)

    def _cached_tokens(self, request: Request) -> int:
        return self._look_up(compat.cached_tokens, request, 0)

    def _prefix_ids(self, request: Request) -> tuple[int, ...]:
        return self._look_up(compat.prefix_ids, request, ())

    def _look_up(self, find: Callable[[Any, Request], T], request: Request, nothing: T) -> T:
        if self._looks_up_cache:
            try:
                return find(self, request)
            except Exception as error:  # noqa: BLE001  once is enough: it would fail again
                self._looks_up_cache = False
                self._note_fault("prefix cache look-up, now off", error)
        return nothing

    def _safely(self, where: str, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001  nothing of ours may break a vLLM step
            self._note_fault(where, error)
            self.control.reveal()
            stock = self._stock_limits
            self.scheduler_config.long_prefill_token_threshold = stock.long_prefill_threshold
            self.max_num_scheduled_tokens = stock.token_budget
            compat.set_max_active(self, stock.max_active_requests)

    def _policy_fault(self, policy: str, error: Exception) -> None:
        self._note_fault(f"policy {policy}, now fcfs", error)

    def _note_fault(self, where: str, error: Exception) -> None:
        self.faults += 1
        text = f"{where}: {type(error).__name__}: {error}"
        if text != self.last_fault:
            logger.error("H-MAS fault, vLLM goes on by its own rules: %s", text, exc_info=error)
        self.last_fault = text
