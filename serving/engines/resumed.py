"""How does a simulation start from the requests that an engine holds?

Puts them back into a virtual vLLM scheduler: running ones with their KV blocks and the
answer so far, waiting ones into the queue. Called by `SimulatedEngine.resume`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.v1.request import Request, RequestStatus

from serving.accounting import RequestTrack
from serving.contracts import ResidentRequest, TraceRequest
from serving.engines.virtual_vllm import TOKEN
from serving.hook import SchedulerHook
from serving.perception.attributes import slo_of
from serving.perception.cost_model import StepShape
from serving.policies import RequestView
from serving.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Begun:
    """A request inside an engine, and what only the future knows of it.

    Attributes:
        inside: its times count from the simulation's second 0, so they are not positive.
        output_tokens: true length of its whole answer, what it has already included.

    Raises:
        ValueError: it cannot go on from there; says which figure does not fit.
    """

    inside: ResidentRequest
    output_tokens: int

    def __post_init__(self) -> None:
        one = self.inside
        if one.arrival_s > 0.0:
            raise ValueError(f"{one.request_id}: arrival_s = {one.arrival_s} is after second 0")
        if self.output_tokens <= one.output_tokens:
            raise ValueError(
                f"{one.request_id}: output_tokens = {self.output_tokens}, but "
                f"{one.output_tokens} are out and at least one is to come"
            )
        # The newest token is not in the cache before the step that follows it.
        if one.computed_tokens >= one.prompt_tokens + one.output_tokens:
            raise ValueError(
                f"{one.request_id}: computed_tokens = {one.computed_tokens} must be below "
                f"prompt and answer so far, {one.prompt_tokens} + {one.output_tokens}"
            )

    def track(self, name: str) -> RequestTrack:
        """Its outcome's beginnings, as a client has seen them."""
        one = self.inside
        view = RequestView(
            name, one.tenant, one.slo_class, one.slo, one.arrival_s, 0.0, one.prompt_tokens
        )
        track = RequestTrack(view, one.max_tokens, ("", 0), one.prompt_tokens)
        track.output_tokens = one.output_tokens
        track.remember(one)
        return track

    @property
    def decodes(self) -> bool:
        """Whether it runs and only its newest token is to be computed."""
        return _decodes(self.inside)

    def arguments(self, settings: EngineSettings) -> dict[str, Any]:
        """What its `vllm_xargs` must say for the hook to know tenant and targets."""
        return request_arguments(self.inside, settings)


def request_arguments(
    one: ResidentRequest | TraceRequest, settings: EngineSettings
) -> dict[str, str | float]:
    """The `vllm_xargs` of a request: its class, or targets that are not those of its class."""
    named: dict[str, str | float] = {"tenant": one.tenant, "slo_class": one.slo_class}
    if one.slo is None or slo_of(named, settings, one.tenant) == (one.slo_class, one.slo):
        return named
    targets = {
        "slo_ttft_ms": one.slo.ttft_ms, "slo_tpot_ms": one.slo.tpot_ms,
        "slo_e2e_ms": one.slo.e2e_ms,
    }  # fmt: skip
    return named | {key: value for key, value in targets.items() if value is not None}


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
    decodes = [one for one in requests if _decodes(one)]
    context = sum(one.computed_tokens for one in decodes)
    observer = scheduler.observer
    step_s = observer.cost.predict(StepShape(decodes=len(decodes), decode_context=context))
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
    request.is_prefill_chunk = not _decodes(inside)
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


def _decodes(inside: ResidentRequest) -> bool:
    """Only its newest token is to be computed: one that gets an answer again would look alike."""
    rest = inside.prompt_tokens + inside.output_tokens - inside.computed_tokens
    return inside.running and inside.output_tokens > 0 and rest == 1


def _came_back(inside: ResidentRequest) -> bool:
    return inside.admitted_s is not None or inside.output_tokens > 0
