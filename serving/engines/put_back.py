"""How does a compiled run start from the requests that an engine holds? As `virtual_resume`."""

from collections.abc import Sequence

import numpy as np

from serving.core.jit import compiled_in_place
from serving.engines.kv_blocks import adopt, cache, find, hold_prefix, next_slot, take
from serving.engines.resumed import Begun
from serving.engines.step_state import (
    PREEMPTED,
    REJECTED,
    RUNNING,
    WAITING,
    EngineState,
    put_last,
)


def put_back(state: EngineState, begun: Sequence[Begun]) -> None:
    """Give a stock engine at second 0 these requests, its first rows, in their order."""
    if begun:
        _put_back(state, begun_rows(state, begun))


def begun_rows(state: EngineState, begun: Sequence[Begun]) -> np.ndarray:
    """Note how far the first rows are that have begun elsewhere; returns which of them ran."""
    inside = [one.inside for one in begun]
    rows = state.progress[: len(begun)]
    rows["known"] += np.array([one.output_tokens for one in inside], np.int32)
    rows["end"] = np.maximum(rows["end"], rows["known"] + 1)
    rows["computed"] = [one.computed_tokens for one in inside]
    rows["preemptions"] = [one.preemptions for one in inside]
    rows["cached_tokens"] = [one.cached_tokens if one.running else 0 for one in inside]
    for name in ("admitted_s", "first_token_s"):
        rows[name] = np.array([getattr(one, name) for one in inside], np.float64)
    return np.array([one.running for one in inside], np.bool_)


@compiled_in_place
def _put_back(state: EngineState, runs: np.ndarray) -> None:
    engine = state.engine[0]
    engine.arrived = len(runs)
    for row in range(len(runs)):
        one = state.progress[row]
        if not one.fits:
            one.state = REJECTED
            engine.left += 1
        elif not (runs[row] and put_running(state, row)):
            came_back = not np.isnan(one.admitted_s) or one.known > one.prompt
            one.state = PREEMPTED if came_back else WAITING
            one.computed = 0
    for place in (PREEMPTED, WAITING):  # vLLM puts preempted requests in front
        for row in range(len(runs)):
            one = state.progress[row]
            if one.state == place:
                hold_prefix(state.kv, row, one.known, state.held_tokens[row])
                put_last(state, row)


@compiled_in_place
def put_running(state: EngineState, row: int) -> bool:
    """Let a request run that ran elsewhere, with its KV blocks; False if there is no room."""
    engine, kv = state.engine[0], state.kv
    pool = kv.pool[0]
    size = pool.block_size
    one = state.progress[row]
    if engine.running >= engine.max_active:
        return False
    slot = found = idle = 0
    need = (one.computed + size - 1) // size
    if pool.caching:
        slot = next_slot(kv)
        found, idle = find(kv, row, slot, (one.prompt - 1) // size)
        if found * size >= one.computed:
            found = idle = 0
    if need - found + idle > pool.free:
        return False
    full = min(one.computed, one.prompt) // size
    if pool.caching:
        pool.open_slots -= 1
        adopt(kv, slot, found)
    take(kv, slot, found, need - found)
    if pool.caching:
        cache(kv, row, slot, found, full)
    one.slot, one.held, one.cached, one.state = slot, need, max(found, full), RUNNING
    state.running[engine.running] = row
    engine.running += 1
    return True
