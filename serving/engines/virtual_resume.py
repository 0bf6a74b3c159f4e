"""How does a virtual vLLM start from the requests that an engine holds?

Puts them back into vLLM's scheduler: running ones with their KV blocks and the answer so far,
waiting ones into the queue. Called by `SimulatedEngine.resume`.
"""

from collections.abc import Sequence
from typing import Any

from vllm.v1.request import Request, RequestStatus

from serving.contracts import ResidentRequest
from serving.engines.resumed import decodes
from serving.engines.virtual_vllm import TOKEN
from serving.hook.hook import SchedulerHook
from serving.perception.cost_model import StepShape


def put_back(
    scheduler: Any, requests: Sequence[tuple[ResidentRequest, Request]], prefill_s_per_token: float
) -> None:
    """Give an empty scheduler these requests, in the order in which an engine held them.

    Running ones for which there is no room (KV blocks, batch) wait, and are computed again,
    as after a preemption. What `ResidentRequest` does not tell begins anew: the debts of tenants'
    floors and shares, and the time of the last preemption. Tenants' buckets are full when
    their oldest request arrives.
    """
    if isinstance(scheduler, SchedulerHook):
        _expect(scheduler, [inside for inside, _ in requests], prefill_s_per_token)
    waiting = [
        (inside, request)
        for inside, request in requests
        if not (inside.running and _put_running(scheduler, inside, request))
    ]
    # vLLM puts preempted requests in front.
    for inside, request in sorted(waiting, key=lambda one: not _came_back(one[0])):
        _put_waiting(scheduler, inside, request)


def _expect(
    scheduler: SchedulerHook, requests: Sequence[ResidentRequest], prefill_s_per_token: float
) -> None:
    decoding = [one for one in requests if decodes(one)]
    context = sum(one.computed_tokens for one in decoding)
    observer = scheduler.observer
    step_s = observer.cost.predict(StepShape(decodes=len(decoding), decode_context=context))
    observer.take_over(step_s, prefill_s_per_token)
    # Or the queue would go by other costs until its next look at the load.
    scheduler.queue.set_load(
        0.0, observer.prefill_s_per_token(), observer.decode_s_per_token()
    )
    for one in requests:
        lane = scheduler.queue.lanes.of(one.tenant)
        lane.ahead_s = min(lane.ahead_s, one.arrival_s)


def _put_running(scheduler: Any, inside: ResidentRequest, request: Request) -> bool:
    if len(scheduler.running) >= scheduler.max_num_running_reqs:
        return False
    computed, manager = inside.computed_tokens, scheduler.kv_cache_manager
    request.status = RequestStatus.RUNNING  # the watermark is for those that wait
    blocks, found = manager.get_computed_blocks(request)[:2]  # of a prefix that others hold
    if found >= computed:
        blocks, found = None, 0
    if computed and manager.allocate_slots(request, computed - found, found, blocks) is None:
        return False
    request.num_computed_tokens = computed
    request.num_preemptions = inside.preemptions
    request.is_prefill_chunk = not decodes(inside)
    scheduler.requests[request.request_id] = request
    scheduler.running.append(request)
    # Prefill is what was there at admission. So a decode is admitted before its answer is there,
    # and a prefill that computes an answer again after it.
    if request.is_prefill_chunk:
        _append_answer(request, inside)
    if isinstance(scheduler, SchedulerHook):
        scheduler.observer.arrive(request)
        scheduler.observer.take_back(request, inside, decodes=not request.is_prefill_chunk)
    if not request.is_prefill_chunk:
        _append_answer(request, inside)
    return True


def _put_waiting(scheduler: Any, inside: ResidentRequest, request: Request) -> None:
    request.status = RequestStatus.WAITING
    if _came_back(inside):
        request.status = RequestStatus.PREEMPTED
        request.num_preemptions = max(1, inside.preemptions)
    _append_answer(request, inside)
    hold_prefix(scheduler, request, inside.cached_tokens)
    scheduler.add_request(request)
    if isinstance(scheduler, SchedulerHook):
        scheduler.observer.take_back(request, inside)


def hold_prefix(scheduler: Any, request: Request, tokens: int) -> None:
    """Let the KV cache hold the first tokens of a request, as if others had just used them.

    In whole blocks, in place of what was used longest ago. Without effect where there is no
    prefix caching, or all blocks are in use.
    """
    manager, size = scheduler.kv_cache_manager, scheduler.block_size
    wanted = min(tokens, request.num_tokens - 1) // size * size
    if not manager.enable_caching or not wanted:
        return
    blocks, found = manager.get_computed_blocks(request)[:2]
    if found < wanted and (
        manager.allocate_slots(request, wanted - found, found, blocks) is not None
    ):
        manager.free(request)


def _append_answer(request: Request, inside: ResidentRequest) -> None:
    if inside.output_tokens:
        request.append_output_token_ids([TOKEN] * inside.output_tokens)


def _came_back(inside: ResidentRequest) -> bool:
    return inside.admitted_s is not None or inside.output_tokens > 0
