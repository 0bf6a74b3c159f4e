"""What does the engine look like now, and which requests does it hold?

Built on request, between two steps. A simulation that resumes from the page of residents goes on
as the engine would.
"""

from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
from vllm.v1.request import Request, RequestStatus

from serving.compat import used_blocks, vllm_version, waiting_elsewhere
from serving.contracts import (
    BatchState,
    ContractInForce,
    Envelope,
    KVState,
    QueueState,
    ResidentPage,
    ResidentRequest,
    RoutingHint,
    Snapshot,
    Totals,
)
from serving.core import calls, routing
from serving.core.cost import REFIT_STEPS
from serving.hook.engine_state import batch_state, queue_state
from serving.hook.lease import Lease
from serving.hook.queue import PolicyQueue
from serving.hook.step_control import StepControl
from serving.perception.accounting import RequestTrack
from serving.perception.lanes import loads
from serving.perception.observer import Observer


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
    started_s: float


def build_snapshot(scheduler: Hooked, now_s: float) -> Snapshot:
    """A snapshot of one engine core; O(waiting + running)."""
    lease, queue, observer = scheduler.lease, scheduler.queue, scheduler.observer
    return Snapshot(
        now_s=now_s,
        rank=scheduler.parallel_config.data_parallel_index,
        vllm_version=vllm_version(),
        epoch=lease.epoch,
        policy=queue.policy.name,
        params=dict(queue.params),
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
        rules=scheduler.queue.counts,
        stopped=lease.stopped,
        contract_epoch=scheduler.contract.epoch,
        started_s=scheduler.started_s,
        loads=loads(queue.lanes),
    )


def build_totals(scheduler: Hooked, now_s: float, histograms: bool = True) -> Totals:
    """What a poll once a second may ask for.

    Most of its time goes into the `histograms` and the hint to routers, which goes once through all
    that wait; quotas need neither.
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
        rules=scheduler.queue.counts,
        shed=lease.decision.limits.shed,
        histograms=(
            tuple(scheduler.observer.accounting.latencies.histograms()) if histograms else ()
        ),
        stopped=lease.stopped is not None,
        contract_epoch=scheduler.contract.epoch,
        loads=loads(scheduler.queue.lanes),
        parts=dict(lease.parts),
        hint=_hint(scheduler, now_s) if histograms else None,
    )


def _hint(scheduler: Hooked, now_s: float) -> RoutingHint:
    """What waits outside the queue, for remote KV or a grammar, is not in it."""
    scheduler.control.follow(scheduler.running)
    hints = np.zeros(1, routing.HINT)
    routing.look(scheduler.queue.core, hints, 0, now_s)
    learned = scheduler.queue.core.cost["samples"][0] >= REFIT_STEPS
    return routing.hint_of(hints[0], bool(learned))


def _queue_state(scheduler: Hooked, now_s: float) -> QueueState:
    per_token_s = scheduler.observer.cost.coefficients.per_prefill_token_s
    elsewhere, queue = waiting_elsewhere(scheduler), scheduler.queue
    names = [request.request_id for request in elsewhere]
    rows = np.array([*queue.waiting_rows(), *map(queue.rows.by_name.__getitem__, names)], int)
    waiting = queue.core.requests[rows]
    tokens = waiting["prompt_tokens"].copy()
    tokens[len(queue) :] = [max(1, r.num_tokens - r.num_computed_tokens) for r in elsewhere]
    sheddable = scheduler.observer.of_classes(rows, scheduler.envelope.sheddable)
    return queue_state(waiting, tokens, sheddable, per_token_s, now_s)


def _batch_state(scheduler: Hooked, now_s: float) -> BatchState:
    scheduler.control.follow(scheduler.running)
    rows = scheduler.queue.rows
    start_s = calls.busy_until_s(rows.at, now_s, *scheduler.observer.step_in_flight)
    rows.core.engine["start_s"] = start_s
    return batch_state(scheduler.queue.core)


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
        _inside(request, track, *scheduler.observer.now_known(request))
        for request in islice(chain(scheduler.running, waiting), limit)
        if (track := scheduler.observer.track(request))
    ]
    return ResidentPage(
        now_s, tuple(found), len(held) - len(found),
        scheduler.observer.prefill_s_per_token(),
    )  # fmt: skip


def _inside(
    request: Request, track: RequestTrack, cached_tokens: int, first_token_s: float | None
) -> ResidentRequest:
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
        admitted_s=track.admitted_s, first_token_s=first_token_s,
        preemptions=track.preemptions, prefix=track.prefix,
        cached_tokens=track.cached_tokens if running else cached_tokens,
    )  # fmt: skip
