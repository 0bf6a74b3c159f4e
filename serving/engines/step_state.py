"""What does the compiled step loop know of an engine and its requests? Arrays, built once a run."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.core.jit import compiled_in_place
from serving.engines.gaps import Gaps, new_gaps
from serving.engines.kv_blocks import KvBlocks, empty_blocks
from serving.engines.offered import Workload
from serving.engines.profile import EngineProfile
from serving.engines.step_noise import step_factors

COMING, WAITING, PREEMPTED, RUNNING, SERVED, REJECTED = range(6)
_LINE_BYTES = 64

# A request's progress: one cache line, because each step reads and writes that of its whole batch.
PROGRESS = np.dtype(
    [
        ("computed", "i4"),  # tokens that have their KV in the cache
        ("known", "i4"),  # tokens of the prompt, and of the answer so far
        ("prompt", "i4"),
        ("end", "i4"),  # `known` when it ends
        ("held", "i4"), ("cached", "i4"),  # KV blocks, and those of them that others can find
        ("slot", "i4"),  # its row of the block table; without prefix caching without meaning
        ("preemptions", "i4"),
        ("cached_tokens", "i4"),  # found in the cache at its first admission
        ("state", "i1"), ("fits", "i1"), ("awaited", "i1"),
        ("admitted_s", "f8"), ("first_token_s", "f8"),  # NaN until then
        ("last_s", "f8"),  # of the last token, or of the rejection
    ],
    align=True,
)  # fmt: skip
ENGINE = np.dtype(
    [
        ("now_s", "f8"),
        # The cost model of `CostCoefficients`.
        ("base_s", "f8"), ("per_prefill_token_s", "f8"), ("per_decode_s", "f8"),
        ("per_context_token_s", "f8"), ("per_square_s", "f8"),
        # Limits of the coming step; a threshold of 0 is none.
        ("token_budget", "i8"), ("max_active", "i8"), ("long_prefill_threshold", "i8"),
        ("by_priority", "i8"),  # the queue goes by priority, then arrival
        # Of prompts without a first token; and of those whose first token came at `fresh_s`, when
        # the last step ended.
        ("queued_tokens", "i8"), ("fresh_tokens", "i8"), ("fresh_s", "f8"),
        ("most_queued_tokens", "i8"),  # of prompts in prefill, beyond which none is let in; 0: any
        # Of the last step: the first `scheduled` of the running list have tokens, those from
        # `admitted` on were admitted in it; `prefill_tokens` to `square` are its shape.
        ("scheduled", "i8"), ("admitted", "i8"), ("preempted", "i8"), ("ended", "i8"),
        ("budget_left", "i8"), ("chunk", "i8"),  # and the most tokens of one request
        ("prefill_tokens", "i8"), ("decodes", "i8"), ("context", "i8"), ("square", "i8"),
        ("running", "i8"), ("waiting", "i8"), ("waiting_first", "i8"),
        ("arrived", "i8"), ("left", "i8"),  # requests so far; the difference is inside
        ("awaits", "i8"), ("awaited", "i8"),  # whether a run ends with certain requests, how many
        ("recomputed_tokens", "i8"),
        ("steps", "i8"),  # so far, also those that had nothing to compute
        ("timed", "i8"),  # so far, of those that had something
        ("looked_at", "i8"),  # by the hook: its running requests, over all steps
        ("logged", "i8"),
    ]
)  # fmt: skip
# What a step did, in order: requests that it preempted (0 tokens), then those that it served.
STEP = np.dtype([("now_s", "f8"), ("step", "i8"), ("row", "i4"), ("tokens", "i4")])


class EngineState(NamedTuple):
    """One engine in virtual time. A request is a row of `progress`, in the order of arrival.

    Attributes:
        engine: ENGINE (1,).
        progress: PROGRESS (requests,).
        arrivals: (requests,), seconds.
        priority: (requests,), lower first; used with `by_priority` only.
        held_tokens: (requests,), of a prompt that are in the KV cache when it arrives.
        kv: the KV blocks.
        running: (max_active_requests,), rows in the order in which vLLM serves them.
        tokens: (max_active_requests,), of the running ones in this step.
        waiting: a ring of rows, of a size that is a power of two.
        preempted, ended: (max_active_requests,), rows in this step.
        log: STEP; empty is no log.
        factors: of the steps' times, as in `step_factors`; empty is no noise.
        gaps: between tokens.
    """

    engine: NDArray[Any]
    progress: NDArray[Any]
    arrivals: NDArray[np.float64]
    priority: NDArray[np.int64]
    held_tokens: NDArray[np.int32]
    kv: KvBlocks
    running: NDArray[np.int32]
    tokens: NDArray[np.int32]
    waiting: NDArray[np.int32]
    preempted: NDArray[np.int32]
    ended: NDArray[np.int32]
    log: NDArray[Any]
    factors: NDArray[np.float64]
    gaps: Gaps


def new_state(profile: EngineProfile, workload: Workload, log: int = 0) -> EngineState:
    """An engine at second 0 to which nothing has come yet; `log` is entries of the step log."""
    count, most = len(workload), profile.max_active_requests
    engine = np.zeros(1, ENGINE)
    for name in ("base_s", "per_prefill_token_s", "per_decode_s", "per_context_token_s"):
        engine[name] = getattr(profile.cost, name)
    engine["per_square_s"], engine["fresh_s"] = profile.cost.per_square_s, -math.inf
    engine["token_budget"], engine["max_active"] = profile.token_budget, most
    progress = _lines(count)
    prompt = progress["prompt"] = progress["known"] = workload.prompt_tokens
    room = profile.max_model_len - prompt
    allowed = np.minimum(workload.max_tokens, room)
    # The first token comes whatever the answer's length.
    progress["end"] = prompt + np.clip(workload.output_tokens, 1, np.maximum(allowed, 1))
    progress["fits"] = room > 1
    progress["admitted_s"] = progress["first_token_s"] = math.nan
    kv = empty_blocks(
        profile.kv_blocks, profile.block_size, profile.max_model_len, most,
        workload.contents if profile.prefix_caching else None,
    )  # fmt: skip
    rows = [np.zeros(most, np.int32) for _ in range(4)]
    ring = np.zeros(1 << count.bit_length(), np.int32)
    priority = np.array([one.priority for one in workload.senders], np.int64)[workload.sender]
    return EngineState(
        engine, progress, workload.arrival_s, priority, workload.cached_tokens, kv,
        rows[0], rows[1], ring, rows[2], rows[3], np.zeros(log, STEP), step_factors(profile),
        new_gaps(count),
    )  # fmt: skip


@compiled_in_place
def first_waiting(state: EngineState) -> int:
    """The row in front of the queue, which must not be empty."""
    return int(state.waiting[state.engine[0].waiting_first])


@compiled_in_place
def drop_first(state: EngineState) -> None:
    """Take the one in front out of the queue."""
    engine = state.engine[0]
    engine.waiting_first = (engine.waiting_first + 1) & (len(state.waiting) - 1)
    engine.waiting -= 1


@compiled_in_place
def put_first(state: EngineState, row: int) -> None:
    """Put a request in front of the queue."""
    engine = state.engine[0]
    engine.waiting_first = (engine.waiting_first - 1) & (len(state.waiting) - 1)
    engine.waiting += 1
    state.waiting[engine.waiting_first] = row


@compiled_in_place
def put_last(state: EngineState, row: int) -> None:
    """Put a request at the end of the queue."""
    engine = state.engine[0]
    state.waiting[(engine.waiting_first + engine.waiting) & (len(state.waiting) - 1)] = row
    engine.waiting += 1


@compiled_in_place
def put_in_order(state: EngineState, row: int) -> None:
    """Put a request into the queue by priority and arrival."""
    engine, ring = state.engine[0], state.waiting
    put_last(state, row)
    place = engine.waiting_first + engine.waiting - 1
    while place > engine.waiting_first:
        before = ring[(place - 1) & (len(ring) - 1)]
        if not goes_before(state, row, before):
            break
        ring[place & (len(ring) - 1)] = before
        place -= 1
    ring[place & (len(ring) - 1)] = row


@compiled_in_place
def goes_before(state: EngineState, row: int, other: int) -> bool:
    """Whether a request goes before another: the lower priority, then the earlier arrival."""
    priority, arrivals = state.priority, state.arrivals
    if priority[row] != priority[other]:
        return bool(priority[row] < priority[other])
    return bool(arrivals[row] < arrivals[other])


def _lines(count: int) -> NDArray[Any]:
    """PROGRESS of so many requests, each in one cache line."""
    room = np.zeros((count + 1) * _LINE_BYTES, np.uint8)
    skip = -room.ctypes.data % _LINE_BYTES
    return room[skip : skip + count * _LINE_BYTES].view(PROGRESS)
