"""What does vLLM's scheduler do in a step, in virtual time? Compiled, and exact to the token.

`begin_step`, `serve_next`, `preempt_last`, `start` and `finish_step` are what any order of
the queue needs; `run_stock` is vLLM's own order, or, with `by_priority`, that of
`--scheduling-policy priority`. Exact for vLLM 0.32 as `virtual_vllm` sets it up:
chunked prefill, first come first served, preemption by recomputation, and no admission of a
request whose whole known sequence does not fit (`scheduler_reserve_full_isl`).

No request reaches `max_model_len`: one that would is ended or rejected before. So vLLM's checks of
that bound inside a step never act, and are left out.
"""

import math
from typing import Any

from serving.core.cost import seconds_at
from serving.core.jit import compiled_in_place
from serving.engines.gaps import bin_of, note_gap
from serving.engines.kv_blocks import adopt, cache, find, hold_prefix, next_slot, release, take
from serving.engines.step_state import (
    PREEMPTED,
    REJECTED,
    RUNNING,
    SERVED,
    WAITING,
    EngineState,
    drop_first,
    first_waiting,
    goes_before,
    put_first,
    put_in_order,
    put_last,
)

# Why `run_stock` returned.
DRAINED, UNTIL, LEFT, TICK, PAUSED, STUCK = range(6)


@compiled_in_place
def run_stock(state: EngineState, until_s: float, tick_s: float, steps: int) -> int:
    """Serve the requests as stock vLLM does, until one of these.

    DRAINED: nothing is inside or to come. UNTIL: `until_s` is reached. LEFT: the awaited ones
    have left. TICK: `tick_s` is reached. PAUSED: after `steps` steps, or when the log is nearly
    full. STUCK: the first in the queue can never be admitted, and nothing else is to come.
    """
    engine = state.engine[0]
    while engine.now_s < until_s:
        if engine.awaits and engine.awaited == 0:
            return LEFT
        arrive(state)
        if engine.now_s >= tick_s:
            return TICK
        # A step preempts and serves each running request at most once.
        if steps == 0 or 0 < len(state.log) < engine.logged + 2 * len(state.running):
            return PAUSED
        steps -= 1
        if take_step(state):
            continue
        if engine.arrived < len(state.arrivals):
            engine.now_s = min(state.arrivals[engine.arrived], tick_s)
        elif engine.left == engine.arrived:
            return DRAINED
        elif tick_s < math.inf:
            engine.now_s = tick_s
        elif until_s == math.inf and engine.preempted == 0:
            return STUCK
        else:
            engine.now_s += 1.0
    return UNTIL


@compiled_in_place
def arrive(state: EngineState) -> None:
    """Let in what has arrived by now."""
    engine, arrivals = state.engine[0], state.arrivals
    while engine.arrived < len(arrivals) and arrivals[engine.arrived] <= engine.now_s:
        let_in(state, engine.arrived)


@compiled_in_place
def let_in(state: EngineState, row: int) -> None:
    """The next request has arrived: queue it, or reject it where it does not fit or is refused."""
    engine, one = state.engine[0], state.progress[row]
    engine.arrived += 1
    if one.fits and not _refused(state, row):
        one.state = WAITING
        engine.queued_tokens += one.prompt
        hold_prefix(state.kv, row, one.known, state.held_tokens[row])
        if engine.by_priority:
            put_in_order(state, row)
        else:
            put_last(state, row)
    else:
        one.state = REJECTED
        one.last_s = engine.now_s
        engine.left += 1
        engine.awaited -= one.awaited


@compiled_in_place
def _refused(state: EngineState, row: int) -> bool:
    """Whether `--max-num-queued-tokens` turns it away, as `AsyncLLM.check_admission` of vLLM 0.33.

    Queued are the whole prompts of all requests whose first token was not out when it arrived;
    its own prompt is not added.
    """
    engine = state.engine[0]
    if engine.most_queued_tokens == 0:
        return False
    queued = engine.queued_tokens
    if engine.fresh_s > state.arrivals[row]:
        queued += engine.fresh_tokens
    return bool(queued >= engine.most_queued_tokens)


@compiled_in_place
def take_step(state: EngineState) -> bool:
    """One step in vLLM's own order; False if there was nothing to compute."""
    _schedule(state)
    if len(state.log):
        log_step(state)
    if state.engine[0].scheduled == 0:
        return False
    finish_step(state)
    return True


@compiled_in_place
def begin_step(state: EngineState, inside: int) -> None:
    """Nothing is scheduled yet in this step; so many requests run or wait."""
    engine = state.engine[0]
    engine.budget_left = engine.chunk = engine.token_budget
    if engine.long_prefill_threshold and inside > 1:
        engine.chunk = engine.long_prefill_threshold  # one alone would starve nobody
    engine.scheduled = engine.preempted = engine.ended = 0
    engine.prefill_tokens = engine.decodes = engine.context = engine.square = 0
    engine.steps += 1


@compiled_in_place
def serve_next(state: EngineState) -> bool:
    """Give tokens to the next running request, unless there are too few free blocks for it."""
    return _give(state, _next_tokens(state))


@compiled_in_place
def _next_tokens(state: EngineState) -> int:
    engine = state.engine[0]
    one = state.progress[state.running[engine.scheduled]]
    return int(min(one.known - one.computed, engine.chunk, engine.budget_left))


@compiled_in_place
def _give(state: EngineState, tokens: int) -> bool:
    engine, kv, place = state.engine[0], state.kv, state.engine[0].scheduled
    pool = kv.pool[0]
    size = pool.block_size
    row = state.running[place]
    one = state.progress[row]
    before = one.computed
    after = before + tokens
    if after >= one.held * size:
        need = (after + size - 1) // size - one.held
        if need > pool.free:
            return False
        take(kv, one.slot, one.held, need)
        one.held += need
        if pool.caching:
            full = after // size
            cache(kv, row, one.slot, one.cached, full)
            one.cached = full
    one.computed = after
    _count(engine, one.prompt, before, tokens)
    state.tokens[place] = tokens
    return True


@compiled_in_place
def preempt_last(state: EngineState) -> int:
    """Take the last of the running list out, and its blocks; it is in no queue then.

    Returns:
        its row.
    """
    state.engine[0].running -= 1
    row = int(state.running[state.engine[0].running])
    _preempt(state, row, state.progress[row].computed)
    return row


@compiled_in_place
def _preempt(state: EngineState, row: int, computed: int) -> None:
    """Take its blocks; so many tokens had been computed before this step."""
    engine, one = state.engine[0], state.progress[row]
    engine.recomputed_tokens += computed
    _free(state, row)
    one.computed, one.state = 0, PREEMPTED
    one.preemptions += 1
    state.preempted[engine.preempted] = row
    engine.preempted += 1


@compiled_in_place
def _preempt_least(state: EngineState) -> bool:
    """Preempt the running request of the least priority, as vLLM's priority scheduling does.

    Its tokens of this step, if it has some by now, go back to the budget.

    Returns:
        whether it was another one than the next to be served.
    """
    engine, running = state.engine[0], state.running
    place = 0
    for i in range(1, engine.running):
        if goes_before(state, running[place], running[i]):
            place = i
    row = int(running[place])
    other = bool(place != engine.scheduled)
    computed = state.progress[row].computed
    if place < engine.scheduled:
        tokens = state.tokens[place]
        computed -= tokens
        _count(engine, state.progress[row].prompt, computed, tokens, -1)
        for i in range(place, engine.scheduled):
            state.tokens[i] = state.tokens[i + 1]
    engine.running -= 1
    for i in range(place, engine.running):
        running[i] = running[i + 1]
    _preempt(state, row, computed)
    put_in_order(state, row)
    return other


@compiled_in_place
def start(state: EngineState, row: int) -> bool:
    """Begin a waiting request, unless its blocks do not fit. Leaves the queue as it is.

    Only while there is budget left, place in the batch, and nothing was preempted.
    """
    engine, kv = state.engine[0], state.kv
    pool = kv.pool[0]
    size = pool.block_size
    one = state.progress[row]
    slot = found = idle = 0
    if pool.caching:
        slot = next_slot(kv)
        # The last token is always computed: the next one comes of it.
        found, idle = find(kv, row, slot, (one.known - 1) // size)
    if (one.known + size - 1) // size - found + idle > pool.free:
        return False
    before = found * size
    tokens = min(one.known - before, engine.chunk, engine.budget_left)
    after = before + tokens
    held = (after + size - 1) // size
    if pool.caching:
        pool.open_slots -= 1
        adopt(kv, slot, found)
    take(kv, slot, found, held - found)
    if pool.caching:
        cache(kv, row, slot, found, after // size)
    if one.state == WAITING:
        one.admitted_s = engine.now_s
        one.cached_tokens = before
    one.slot, one.held, one.cached = slot, held, after // size
    one.computed, one.state = after, RUNNING
    _count(engine, one.prompt, before, tokens)
    state.running[engine.running] = row
    state.tokens[engine.running] = tokens
    engine.running += 1
    return True


@compiled_in_place
def finish_step(state: EngineState) -> None:
    """Let the step's time pass; whose known tokens are all computed gets a new one."""
    engine, running = state.engine[0], state.running
    took_s = seconds_at(
        engine.base_s, engine.per_prefill_token_s, engine.per_decode_s,
        engine.per_context_token_s, engine.per_square_s, engine.prefill_tokens, engine.decodes,
        engine.context, engine.square,
    )  # fmt: skip
    if len(state.factors):
        took_s *= state.factors[engine.timed & (len(state.factors) - 1)]
    engine.timed += 1
    engine.now_s += took_s
    now_s, kept, ended = engine.now_s, 0, 0
    gaps, watched, alike, last_s = state.gaps, state.gaps.watched[0], 0, engine.fresh_s
    gap_s = now_s - last_s  # of who got a token in the last step, too
    watches = watched.first < watched.beyond or watched.least_itl_s < math.inf
    engine.fresh_s, engine.fresh_tokens = now_s, 0
    for i in range(engine.scheduled):
        row = running[i]
        one = state.progress[row]
        if one.computed == one.known:
            one.known += 1
            if watches:
                if one.last_s == last_s:
                    alike += watched.first <= row < watched.beyond
                    if gap_s > watched.least_itl_s:
                        gaps.late[row] += gap_s > gaps.itl_s[row]
                elif one.last_s > 0.0:  # nobody knows when another engine's last token came
                    note_gap(gaps, row, now_s - one.last_s)
            one.last_s = now_s
            if math.isnan(one.first_token_s):
                one.first_token_s = now_s
                engine.queued_tokens -= one.prompt
                engine.fresh_tokens += one.prompt
            if one.known >= one.end:
                _free(state, row)
                one.state = SERVED
                engine.awaited -= one.awaited
                state.ended[ended] = row
                ended += 1
                continue
        running[kept] = row
        kept += 1
    if alike:
        gaps.histogram[bin_of(gap_s)] += alike
    if ended:
        for i in range(engine.scheduled, engine.running):
            running[kept] = running[i]
            kept += 1
        engine.running = kept
        engine.left += ended
    engine.ended = ended


@compiled_in_place
def _serve_by_priority(state: EngineState) -> None:
    """Running requests in list order; where blocks run out, the least priority is preempted.

    Who must be preempted for its own tokens ends the round: those behind it get none.
    """
    engine = state.engine[0]
    while engine.scheduled < engine.running and engine.budget_left > 0:
        tokens = _next_tokens(state)  # what is preempted meanwhile gives it no more
        while not _give(state, tokens):
            if not _preempt_least(state):
                return


@compiled_in_place
def _schedule(state: EngineState) -> None:
    engine = state.engine[0]
    begin_step(state, engine.running + engine.waiting)
    if engine.by_priority:
        _serve_by_priority(state)
    else:
        while engine.scheduled < engine.running and engine.budget_left > 0:
            if not serve_next(state):
                put_first(state, preempt_last(state))
    engine.admitted = engine.scheduled
    if engine.preempted == 0:
        while engine.waiting and engine.budget_left > 0 and engine.running < engine.max_active:
            if not start(state, first_waiting(state)):
                break
            drop_first(state)


@compiled_in_place
def _count(engine: Any, prompt: int, before: int, tokens: int, sign: int = 1) -> None:
    # The shape of the step, as `perception.cost_model.step_shape` has it; -1 takes it back.
    if tokens == 1 and before >= prompt:
        engine.decodes += sign
        engine.context += sign * before
    else:
        engine.prefill_tokens += sign * tokens
        engine.square += sign * tokens * before
    engine.scheduled += sign
    engine.budget_left -= sign * tokens


@compiled_in_place
def _free(state: EngineState, row: int) -> None:
    kv, one = state.kv, state.progress[row]
    release(kv, one.slot, one.held, one.cached)
    if kv.pool[0].caching:
        kv.slots[kv.pool[0].open_slots] = one.slot
        kv.pool[0].open_slots += 1
    one.held = one.cached = 0


@compiled_in_place
def log_step(state: EngineState) -> None:
    """Write what the step did into the log."""
    engine = state.engine[0]
    for i in range(engine.preempted + engine.scheduled):
        entry = state.log[engine.logged]
        entry.now_s, entry.step = engine.now_s, engine.steps
        if i < engine.preempted:
            entry.row, entry.tokens = state.preempted[i], 0
        else:
            k = i - engine.preempted
            entry.row, entry.tokens = state.running[k], state.tokens[k]
        engine.logged += 1
