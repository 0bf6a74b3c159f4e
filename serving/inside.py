"""Which requests does the engine hold, and how far are they? Built on request, between two steps.

A simulation that resumes from the page goes on as the engine would.
"""

from itertools import chain, islice
from typing import TYPE_CHECKING

from vllm.v1.request import Request, RequestStatus

from serving.accounting import RequestTrack
from serving.contracts import Inside, InsidePage

if TYPE_CHECKING:
    from serving.hook import SchedulerHook


def build_inside(scheduler: "SchedulerHook", now_s: float, limit: int) -> InsidePage:
    """At most `limit` requests: running ones in their order, then the others by arrival.

    Left out, and counted, are the rest and those that could not be classified. What waits is
    read from vLLM's table of requests, in the order in which they came: it holds those too
    that wait outside the queue (for remote KV, a grammar), and needs no sorting.
    """
    waiting = (
        request
        for request in scheduler.requests.values()
        if request.status != RequestStatus.RUNNING and not request.is_finished()
    )
    found = [
        _inside(request, track)
        for request in islice(chain(scheduler.running, waiting), limit)
        if (track := scheduler.observer.track(request))
    ]
    return InsidePage(
        now_s, tuple(found), len(scheduler.requests) - len(found),
        scheduler.observer.prefill_s_per_token(),
    )  # fmt: skip


def _inside(request: Request, track: RequestTrack) -> Inside:
    view = track.view
    # vLLM counts a token as computed once it is scheduled, so with a step in flight all of
    # them may be. The newest one is then only about to be: it goes through the next step,
    # and a request of which nothing is left to compute would never be scheduled again.
    computed = min(request.num_computed_tokens, request.num_tokens - 1)
    return Inside(
        request_id=request.request_id, arrival_s=view.arrival_s, tenant=view.tenant,
        slo_class=view.slo_class, slo=view.slo, prompt_tokens=request.num_prompt_tokens,
        max_tokens=track.max_tokens, priority=request.priority,
        running=request.status == RequestStatus.RUNNING,
        computed_tokens=computed, output_tokens=request.num_output_tokens,
        admitted_s=track.admitted_s, first_token_s=track.first_token_s,
        preemptions=track.preemptions,
    )  # fmt: skip
