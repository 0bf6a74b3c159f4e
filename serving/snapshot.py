"""What does the engine look like now, and which requests does it hold?

Built on request, between two steps. A simulation that resumes from the page of residents goes on
as the engine would.
"""

import math
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
from vllm.v1.request import Request, RequestStatus

from serving.accounting import RequestTrack
from serving.compat import used_blocks, vllm_version, waiting_elsewhere
from serving.contracts import (
    BatchState,
    ContractInForce,
    Envelope,
    KVState,
    QueueState,
    ResidentPage,
    ResidentRequest,
    Snapshot,
    TenantLoad,
    Totals,
)
from serving.lease import Lease
from serving.observer import Observer
from serving.queue import PolicyQueue
from serving.shedding import is_in_vain
from serving.step_control import StepControl


class Hooked(Protocol):
    """What is read here of a scheduler with the hook."""

    lease: Lease
    contract: ContractInForce
    queue: PolicyQueue
    observer: Observer
    control: StepControl
    envelope: Envelope
    faults: int
    last_fault: str
    running: list[Any]
    requests: dict[str, Any]
    parallel_config: Any


def build_snapshot(scheduler: Hooked, now_s: float) -> Snapshot:
    """A snapshot of one engine core; O(waiting + running)."""
    lease, queue, observer = scheduler.lease, scheduler.queue, scheduler.observer
    return Snapshot(
        now_s=now_s,
        rank=scheduler.parallel_config.data_parallel_index,
        vllm_version=vllm_version(),
        epoch=lease.epoch,
        policy=queue.policy.name,
        params=dict(queue.context.params),
        limits=lease.decision.limits,
        envelope=scheduler.envelope,
        controller_id=lease.owner,
        lease_left_s=lease.left_s(now_s),
        queue=_queue_state(scheduler, now_s),
        batch=_batch_state(scheduler, now_s),
        kv=KVState(
            total_blocks=scheduler.envelope.kv_blocks,
            used_blocks=used_blocks(scheduler),
            predicted_peak_blocks=scheduler.control.peak_blocks(),
            preemptions=observer.preemptions,
            recomputed_tokens=observer.recomputed_tokens,
        ),
        cost=observer.cost.coefficients,
        length_coverage=observer.lengths.coverage,
        counters=observer.accounting.counters(),
        journal_head=observer.accounting.head,
        policy_errors=scheduler.faults,
        last_error=scheduler.last_fault,
        rules=dict(scheduler.queue.counts),
        stopped=lease.stopped,
        contract_epoch=scheduler.contract.epoch,
    )


def build_totals(scheduler: Hooked, now_s: float, histograms: bool = True) -> Totals:
    """What a poll once a second may ask for; independent of how many requests wait.

    Most of its time goes into the `histograms`, which quotas do not need.
    """
    lease = scheduler.lease
    return Totals(
        rank=scheduler.parallel_config.data_parallel_index,
        epoch=lease.epoch,
        policy=scheduler.queue.policy.name,
        lease_left_s=lease.left_s(now_s),
        policy_errors=scheduler.faults,
        waiting=len(scheduler.queue) + len(waiting_elsewhere(scheduler)),
        running=len(scheduler.running),
        counters=scheduler.observer.accounting.counters(),
        rules=dict(scheduler.queue.counts),
        shed=lease.decision.limits.shed,
        histograms=(
            tuple(scheduler.observer.accounting.latencies.histograms()) if histograms else ()
        ),
        stopped=lease.stopped is not None,
        contract_epoch=scheduler.contract.epoch,
        loads=tuple(
            TenantLoad(lane.tenant, lane.waiting, lane.inside)
            for lane in scheduler.queue.lanes
            if lane.inside
        ),
    )


def _queue_state(scheduler: Hooked, now_s: float) -> QueueState:
    per_token_s = scheduler.observer.cost.coefficients.per_prefill_token_s
    may_shed = frozenset(scheduler.envelope.sheddable)
    tokens = hopeless = sheddable = in_vain = 0
    oldest_s = now_s
    laxities = []
    elsewhere = [scheduler.control.passing.view_of_rest(r) for r in waiting_elsewhere(scheduler)]
    for view in chain(scheduler.queue.views(), elsewhere):
        tokens += view.prompt_tokens
        oldest_s = min(oldest_s, view.arrival_s)
        laxity_s = view.deadline_s - now_s - view.prompt_tokens * per_token_s
        if laxity_s < 0:  # whether or not the policy demotes
            hopeless += 1
        elif math.isfinite(laxity_s):
            laxities.append(laxity_s)
        if view.slo_class in may_shed:
            sheddable += 1
            in_vain += is_in_vain(view, laxity_s, now_s)
    laxities.sort()
    return QueueState(
        waiting=len(scheduler.queue) + len(elsewhere),
        waiting_tokens=tokens,
        queued_prefill_s=tokens * per_token_s,
        oldest_wait_s=now_s - oldest_s,
        min_laxity_s=laxities[0] if laxities else None,
        p10_laxity_s=laxities[len(laxities) // 10] if laxities else None,
        hopeless=hopeless,
        sheddable=sheddable,
        sheddable_hopeless=in_vain,
    )


def _batch_state(scheduler: Hooked, now_s: float) -> BatchState:
    observer = scheduler.observer
    state = observer.batch.state(observer.busy_until_s(now_s))
    slacks = np.sort(state.slack_s[np.isfinite(state.slack_s)])
    decoding = int(state.decoding.sum())
    return BatchState(
        running=len(scheduler.running),
        decoding=decoding,
        prefilling=len(scheduler.running) - decoding,
        decode_slack_p10_s=float(slacks[len(slacks) // 10]) if len(slacks) else None,
        steps=observer.steps,
        last_step_s=observer.last_step_s,
        step_time_bias=observer.cost.bias,
        last_token_budget=scheduler.control.last_budget,
    )


def build_inside(scheduler: Hooked, now_s: float, limit: int) -> ResidentPage:
    """At most `limit` requests: running ones in their order, then the others by arrival.

    The rest and requests that could not be classified are left out, and counted. What waits is
    read from vLLM's table of requests, in the order in which they came: it holds those too
    that wait outside the queue (for remote KV, a grammar), and needs no sorting.
    """
    # Of a finished one another engine may still fetch the KV: it has left, as far as we count.
    held = [request for request in scheduler.requests.values() if not request.is_finished()]
    waiting = (request for request in held if request.status != RequestStatus.RUNNING)
    found = [
        _inside(request, track)
        for request in islice(chain(scheduler.running, waiting), limit)
        if (track := scheduler.observer.track(request))
    ]
    return ResidentPage(
        now_s, tuple(found), len(held) - len(found),
        scheduler.observer.prefill_s_per_token(),
    )  # fmt: skip


def _inside(request: Request, track: RequestTrack) -> ResidentRequest:
    view = track.view
    # vLLM counts a token as computed once it is scheduled, so with a step in flight all of
    # them may be. The newest one is then only about to be: it goes through the next step,
    # and a request of which nothing is left to compute would never be scheduled again.
    computed = min(request.num_computed_tokens, request.num_tokens - 1)
    running = request.status == RequestStatus.RUNNING
    return ResidentRequest(
        request_id=request.request_id, arrival_s=view.arrival_s, tenant=view.tenant,
        slo_class=view.slo_class, slo=view.slo, prompt_tokens=request.num_prompt_tokens,
        max_tokens=track.max_tokens, priority=request.priority,
        running=running,
        computed_tokens=computed, output_tokens=request.num_output_tokens,
        admitted_s=track.admitted_s, first_token_s=track.first_token_s,
        preemptions=track.preemptions, prefix=track.prefix,
        cached_tokens=track.cached_tokens if running else view.cached_tokens,
    )  # fmt: skip
