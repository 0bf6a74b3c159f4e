"""What is the hook of a compiled engine? Decisions, contract, and what it says of itself.

The counterpart of `SchedulerHook`, which sits inside vLLM: the same order, limits, lease and books,
over the same arrays. What happens in a step is `hooked_steps`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compat import vllm_version
from serving.contracts import (
    Ack,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    Envelope,
    JournalPage,
    KVState,
    Limits,
    Parts,
    ResidentPage,
    ResidentRequest,
    Snapshot,
    TraceRequest,
)
from serving.contracts.settings import EngineSettings, judge_change
from serving.core import decoding, queue
from serving.core.control import prefill_rate
from serving.core.cost import new_cost
from serving.core.lengths import GROUPS_PER_TENANT, group_of, groups_of, learn, new_lengths
from serving.core.state import NONE, REQUEST, Core, with_rows
from serving.engines.gaps import promise
from serving.engines.hooked_steps import (
    EXPIRED,
    NEW_TENANT,
    put_back_hooked,
    run_hooked,
    tell,
)
from serving.engines.notes import Notes, new_notes
from serving.engines.offered import Workload
from serving.engines.profile import EngineProfile
from serving.engines.put_back import begun_rows
from serving.engines.resumed import Begun, request_arguments
from serving.engines.step_state import EngineState
from serving.engines.virtual_books import VirtualBooks, VirtualRun
from serving.hook.engine_state import batch_state, coefficients, queue_state
from serving.hook.lease import Lease
from serving.hook.order import Order
from serving.perception.attributes import slo_of
from serving.perception.lanes import Lanes, loads
from serving.policies import complete_params
from serving.policies.base import seconds

_ENOUGH_SEEN = 50
_version = cache(vllm_version)  # each snapshot says it, and to read it from files takes 4 ms


@dataclass(slots=True)
class _Faults:
    """Of policies. Noted by the order of the queue, which must not hold the hook that holds it."""

    count: int = 0
    last: str = ""

    def note(self, policy: str, error: Exception) -> None:
        self.count += 1
        self.last = f"policy {policy}, now fcfs: {type(error).__name__}: {error}"


class VirtualHook:
    """The hook of one compiled engine.

    Args:
        profile: the machine.
        settings: of the engine.
        now: gives virtual seconds.

    Attributes:
        told_lengths: whether it knows how long answers will be, and has nothing to predict.
    """

    def __init__(
        self, profile: EngineProfile, settings: EngineSettings, now: Callable[[], float]
    ) -> None:
        self.settings, self._now = settings, now
        self.envelope = Envelope(
            profile.max_active_requests, profile.token_budget, profile.max_model_len,
            profile.kv_blocks, profile.block_size, settings.contract.sheddable,
            profile.prefix_caching, settings.max_wait_s, settings.bucket_s,
        )  # fmt: skip
        limits = Limits(profile.max_active_requests, profile.token_budget)
        name = settings.default_policy
        default = Decision("", 0, 0.0, name, complete_params(name, {}), limits)
        self.lease = Lease(default, self.envelope)
        self.in_force = ContractInForce(0, settings.contract, settings.slo_scale)
        most_owed = 2.0 * max(profile.max_model_len, 2 * profile.kv_blocks * profile.block_size)
        self._lanes = Lanes({}, {}, settings.max_tenants, settings.bucket_s, most_owed)
        self._lanes.follow(settings.contract)
        self._faults = _Faults()
        self._order = Order(settings.max_wait_s, self._faults.note, self._lanes)
        self._order.describe_machine(self.envelope, [(profile.block_size, math.inf)])
        self._lanes.rows.core = self.core._replace(cost=new_cost(astuple(profile.cost)))
        self._order.enforce(default, 0)
        self._numbers: dict[str, int] = {}  # of tenants, for the length model
        self._lengths = new_lengths()
        self._tenants: dict[str, int] = {}  # of the present run
        self.told_lengths = False
        self._books = VirtualBooks(settings)
        self._preempted_elsewhere = 0  # of the requests that have begun there
        self._state: EngineState | None = None
        self._notes: Notes | None = None

    @property
    def core(self) -> Core:
        """The arrays."""
        return self._lanes.core

    @property
    def arrived(self) -> int:
        """Requests that have arrived by now, or were held from the start."""
        return 0 if self._state is None else int(self._state.engine["arrived"][0])

    # -- decisions ------------------------------------------------------------------------

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force, or say why not."""
        self.expire()
        ack = self.lease.accept(decision, self._now())
        if ack.accepted:
            self._enforce()
        return ack

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Extend the lease of the controller that holds it; give tenants these parts."""
        self.expire()
        ack = self.lease.renew(controller_id, ttl_s, self._now(), parts)
        if ack.accepted and parts is not None:
            self._lanes.divide(parts)
        return ack

    def release(self, controller_id: str) -> Ack:
        """Give the lease back and return to the default at once."""
        self.expire()
        ack = self.lease.release(controller_id, self._now())
        if ack.accepted:
            self._enforce()
        return ack

    def stop(self, by: str, reason: str) -> Ack:
        """The kill switch."""
        self.expire()
        ack = self.lease.stop(by, reason, self._now())
        self._enforce()
        return ack

    def start(self) -> Ack:
        """Let decisions in again."""
        return self.lease.start()

    def expire(self) -> None:
        """End the lease if it is overdue."""
        if self.lease.expire(self._now()):
            self._enforce()

    def _enforce(self) -> None:
        self._tell_books()  # of what was refused under the decision of old
        self._lanes.divide(self.lease.parts)
        self._order.enforce(self.lease.decision, self.lease.epoch)

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force, or say why not. Who is inside keeps its targets."""
        ack, settings = judge_change(self.in_force, change, self.settings)
        if ack.accepted and not change.check_only:
            self._tell_books()
            self.settings = settings
            self._lanes.follow(settings.contract)
            self._books.follow(settings)
            self.envelope = replace(self.envelope, sheddable=settings.contract.sheddable)
            self.lease.envelope = self.envelope
            self.core.engine["shed_owed"] = 0.0  # the count begins anew, as at the API server
            self.in_force = replace(
                self.in_force, epoch=change.epoch, contract=change.contract, since_s=self._now(),
                by=change.by,
            )  # fmt: skip
            if self._books.run is not None:
                self._promise(self._books.run, self.arrived)
        return ack

    def enforce_over(self, core: Core, decision: Decision) -> None:
        """Let a decision hold over other arrays of these tenants, without lease and books."""
        self._lanes.rows.core = core
        self._order.enforce(decision, decision.epoch)

    # -- running --------------------------------------------------------------------------

    def learn_lengths(self, served: Iterable[tuple[str, int, int, int]]) -> None:
        """Learn from answers: (tenant, prompt_tokens, max_tokens, output_tokens), oldest first."""
        for tenant, prompt_tokens, max_tokens, output_tokens in served:
            learn(*self._lengths, self._group(tenant, prompt_tokens, max_tokens), output_tokens)

    def begin(
        self, state: EngineState, workload: Workload, begun: Sequence[Begun] | None,
        requests: Sequence[ResidentRequest | TraceRequest], prefill_s_per_token: float,
    ) -> Notes:  # fmt: skip
        """Know this workload, and hold what has begun elsewhere; None if nothing is taken over."""
        offered: list[ResidentRequest | TraceRequest] = [one.inside for one in begun or ()]
        offered += requests
        self._state = state
        count, most = len(offered), len(state.running)
        self._lanes.rows.core = with_rows(self.core, max(count, len(self.core.requests)))
        names = dict.fromkeys(one.tenant for one in workload.senders)
        self._tenants = {name: number for number, name in enumerate(names)}
        whose = np.array([self._tenants[one.tenant] for one in workload.senders], np.int64)
        self._notes = new_notes(self._lengths, count, most)._replace(
            whose=whose[workload.sender], lanes=np.zeros(len(names), np.int64)
        )
        self._books.run = run = VirtualRun(state, self._notes, workload, offered)
        self._promise(run, 0)
        if begun is not None:
            lanes = [self._lanes.of(one.inside.tenant).row for one in begun]
            self.core.requests["tenant"][: len(begun)] = lanes
            self._preempted_elsewhere = sum(one.inside.preemptions for one in begun)
            runs = begun_rows(state, begun)
            decodes = np.array([one.decodes for one in begun], np.bool_)
            put_back_hooked(state, self.core, self._notes, runs, decodes, prefill_s_per_token)
        self._know_lanes()
        return self._notes

    def give_lanes(self) -> None:
        """After `begin`: all tenants of the workload get their lanes, before they send anything.

        For those that run copies of the arrays, where nobody gives lanes to who arrives.
        """
        assert self._books.run is not None
        workload = self._books.run.workload
        lanes = np.array([self._lanes.of(one.tenant).row for one in workload.senders], np.int32)
        self.core.requests["tenant"][: len(workload)] = lanes[workload.sender]

    def run(self, state: EngineState, until_s: float, tick_s: float, steps: int) -> int:
        """Serve on, until one of the reasons of `virtual_steps`."""
        assert self._notes is not None
        while True:
            ends_s = self.lease.ends_s
            why = run_hooked(state, self.core, self._notes, until_s, tick_s, ends_s, steps)
            if why == NEW_TENANT:
                self._give_lane(self.arrived)
            elif why == EXPIRED:
                self.lease.expire(float(state.engine["now_s"][0]))
                self._enforce()
            else:
                return int(why)

    def _give_lane(self, row: int) -> None:
        assert self._books.run is not None
        workload = self._books.run.workload
        lane = self._lanes.enter(workload.senders[workload.sender[row]].tenant)
        self.core.requests["tenant"][row] = lane.row
        self._know_lanes()

    def _know_lanes(self) -> None:
        assert self._notes is not None
        self._notes.lanes[:] = NONE
        for lane in self._lanes:
            if lane.tenant in self._tenants:
                self._notes.lanes[self._tenants[lane.tenant]] = lane.row

    def _promise(self, run: VirtualRun, first: int) -> None:
        """Note what requests from row `first` on were promised, by the contract in force."""
        sheddable, workload = set(self.settings.contract.sheddable), run.workload
        like = np.zeros(len(workload.senders), REQUEST)  # one row for all requests of a sender
        run.promise[first:] = workload.sender[first:] + len(run.promises)
        for row, one in zip(like, workload.senders, strict=True):
            named = request_arguments(one, self.settings)
            slo_class, slo = slo_of(named, self.settings, one.tenant)
            run.promises.append((slo_class, slo))
            row["ttft_s"], row["tpot_s"] = seconds(slo.ttft_ms), seconds(slo.tpot_ms)
            row["e2e_s"], row["priority"] = seconds(slo.e2e_ms), one.priority
            row["itl_s"] = math.inf  # the loop counts its gaps
            row["tenant"] = NONE  # it has a lane once it sends something
            row["group"] = GROUPS_PER_TENANT * self._number(one.tenant)
        slos = [slo for _, slo in run.promises[-len(workload.senders) :]]
        promise(run.state.gaps, slos, workload.sender, first)
        rows = self.core.requests[: len(workload)]
        np.take(like, workload.sender[first:], out=rows[first:], mode="clip")
        # Who is inside keeps class and targets, but what is sheddable now may be shed.
        rows["sheddable"] = np.array([name in sheddable for name, _ in run.promises])[run.promise]
        weight_of, senders = self.settings.contract.weight_of, cycle(workload.senders)
        weights = [
            weight_of(one.tenant, name)
            for one, (name, _) in zip(senders, run.promises, strict=False)
        ]
        self._order.weigh(slice(len(workload)), np.array(weights)[run.promise])
        know_requests(rows, workload, first)
        if self.told_lengths:
            rows["group"][first:] = -np.maximum(workload.output_tokens[first:], 1)

    def _number(self, tenant: str) -> int:
        return self._numbers.setdefault(tenant, len(self._numbers))

    def _group(self, tenant: str, prompt_tokens: int, max_tokens: int) -> int:
        return int(group_of(self._number(tenant), prompt_tokens, max_tokens))

    # -- what it says of itself ------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The state between two steps; O(waiting + running)."""
        self.expire()
        self._tell_books()
        now_s, core, state, lease = self._now(), self.core, self._state, self.lease
        waiting = core.requests[queue.waiting_rows(core)]
        recomputed = preemptions = 0
        if state is not None:
            tell(state, core)
            recomputed = int(state.engine["recomputed_tokens"][0])
            preemptions = int(state.progress["preemptions"].sum()) - self._preempted_elsewhere
        (lengths, _), books = self._lengths, self._books.accounting
        cost = coefficients(core)
        return Snapshot(
            now_s=now_s, rank=0, vllm_version=_version(), epoch=lease.epoch,
            policy=self._order.policy.name, params=dict(self._order.params),
            limits=lease.decision.limits, envelope=self.envelope, controller_id=lease.owner,
            lease_left_s=lease.left_s(now_s),
            queue=queue_state(
                waiting, waiting["prompt_tokens"], waiting["sheddable"] > 0,
                cost.per_prefill_token_s, now_s,
            ),
            batch=batch_state(core),
            kv=KVState(
                self.envelope.kv_blocks, int(core.engine["used_blocks"][0]),
                int(decoding.peak_blocks(core)), preemptions, recomputed,
            ),
            cost=cost,
            length_coverage=(
                float(lengths["covered"][0]) if lengths["seen"][0] >= _ENOUGH_SEEN else None
            ),
            counters=books.counters(), journal_head=books.head,
            policy_errors=self._faults.count, last_error=self._faults.last,
            rules=self._order.counts, stopped=lease.stopped, contract_epoch=self.in_force.epoch,
            loads=loads(self._lanes),
        )  # fmt: skip

    def journal(self, cursor: int, limit: int) -> JournalPage:
        """Arrivals and outcomes from `cursor` on."""
        self._tell_books()
        return self._books.accounting.page(cursor, limit)

    def inside(self, limit: int) -> ResidentPage:
        """The requests that the engine holds: running ones in their order, then as they came."""
        self._tell_books()
        waiting, rate = queue.waiting_rows(self.core).tolist(), float(prefill_rate(self.core))
        held = tuple(self._books.inside(self.core, waiting, limit))
        running = 0 if self._state is None else int(self._state.engine["running"][0])
        return ResidentPage(self._now(), held, running + len(waiting) - len(held), rate)

    def _tell_books(self) -> None:
        self._books.tell(self.core, self._order.policy.name)


def know_requests(rows: NDArray[Any], workload: Workload, first: int = 0) -> None:
    """Note when requests from row `first` on come and how long they are.

    Args:
        rows: `state.REQUEST` of each; the tenant's number is in `group`.
        workload: the same requests.
        first: none from there on has arrived.
    """
    new = rows[first : len(workload)]
    new["arrival_s"] = workload.arrival_s[first:]
    new["whole_prompt_tokens"] = workload.prompt_tokens[first:]
    new["max_tokens"] = workload.max_tokens[first:]
    new["deprioritised_s"], new["policy"] = np.nan, -1
    groups = new["group"] // GROUPS_PER_TENANT
    groups_of(groups, workload.prompt_tokens[first:], workload.max_tokens[first:], groups)
    new["group"] = groups
