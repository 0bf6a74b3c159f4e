"""What does vLLM with the hook do in a step, in virtual time? Compiled.

vLLM's part is `virtual_steps`, the hook's is `serving.core`: the same functions that decide inside
vLLM. Here is in which order they are called: as `SchedulerHook` calls them.
"""

import math

import numpy as np

from serving.core import batch, queue
from serving.core.control import begin_step, decode_rate, plan, prefill_rate
from serving.core.cost import step_seconds
from serving.core.jit import compiled_in_place
from serving.core.lengths import learn, predicted
from serving.core.state import NONE, Core
from serving.engines.kv_blocks import find, hold_prefix, next_slot
from serving.engines.notes import ADMITTED, ARRIVED, LEFT_ENGINE, REFUSED, Notes, note
from serving.engines.put_back import put_running
from serving.engines.step_state import PREEMPTED, REJECTED, WAITING, EngineState
from serving.engines.virtual_steps import (
    DRAINED,
    LEFT,
    PAUSED,
    STUCK,
    TICK,
    UNTIL,
    finish_step,
    log_step,
    preempt_last,
    serve_next,
    start,
)
from serving.engines.virtual_steps import begin_step as begin_vllm_step

EXPIRED, NEW_TENANT = 6, 7
FULL_TOKENS = 10_000.0  # that a prefill rate taken over counts for: a few dozen steps' worth
_WHOLE = 1.0 - 1e-9  # so that ten times a tenth is one


@compiled_in_place
def run_hooked(  # noqa: PLR0911  one for each reason
    state: EngineState, core: Core, notes: Notes, until_s: float, tick_s: float,
    lease_s: float, steps: int,
) -> int:  # fmt: skip
    """Serve the requests as the hook does, until one of the reasons of `run_stock`.

    EXPIRED: the lease has ended by the coming step, or by an arrival that may be shed.
    NEW_TENANT: the next arrival's tenant has no lane of its own. Once it is in the lane that it is
    given, its `tenant` says so.
    """
    engine, arrivals = state.engine[0], state.arrivals
    while engine.now_s < until_s:
        if engine.awaits and engine.awaited == 0:
            return LEFT
        why = _arrive(state, core, notes, lease_s)
        if why != NONE:
            return why
        if engine.now_s >= tick_s:
            return TICK
        if is_busy(state) and engine.now_s >= lease_s:
            return EXPIRED
        if steps == 0 or 0 < len(state.log) < engine.logged + 2 * len(state.running):
            return PAUSED
        steps -= 1
        if take_hooked_step(state, core, notes):
            continue
        if engine.arrived < len(arrivals):
            engine.now_s = min(arrivals[engine.arrived], tick_s)
        elif engine.left == engine.arrived:
            return DRAINED
        elif tick_s < math.inf:
            engine.now_s = tick_s
        elif until_s == math.inf and lease_s == math.inf and engine.preempted == 0:
            return STUCK
        else:
            engine.now_s += 1.0
    return UNTIL


@compiled_in_place
def _arrive(state: EngineState, core: Core, notes: Notes, lease_s: float) -> int:
    """Let in what has arrived by now, but for what is shed; NONE, or what comes first."""
    engine = state.engine[0]
    while engine.arrived < len(state.arrivals) and state.arrivals[engine.arrived] <= engine.now_s:
        if state.progress[engine.arrived].fits and engine.now_s >= lease_s:
            return EXPIRED
        if not let_in_hooked(state, core, notes, engine.arrived):
            return NEW_TENANT
    return NONE


@compiled_in_place
def let_in_hooked(state: EngineState, core: Core, notes: Notes, row: int) -> bool:
    """The next request has arrived: queue it, or turn it away; False if it needs a lane first."""
    engine, hook = state.engine[0], core.engine[0]
    one, request = state.progress[row], core.requests[row]
    sheds = one.fits > 0 and request.sheddable > 0 and hook.shed > 0.0
    refuses = sheds and hook.shed_owed + hook.shed >= _WHOLE
    if one.fits and not refuses and request.tenant == NONE:
        request.tenant = notes.lanes[notes.whose[row]]
        if request.tenant == NONE:
            return False
    engine.arrived += 1
    if sheds:
        hook.shed_owed += hook.shed
        if refuses:
            hook.shed_owed -= 1.0
            one.fits = 0
            note(notes, row, REFUSED)
    if not one.fits:
        one.state = REJECTED
        one.last_s = engine.now_s
        engine.left += 1
        engine.awaited -= one.awaited
        return True
    one.state = WAITING
    hold_prefix(state.kv, row, one.known, state.held_tokens[row])
    request.cached_tokens = notes.cached[row] = _cached(state, row)
    mean, q90 = predicted(notes.lengths, notes.histograms, request.group)
    batch.arrive(core, row, mean, q90)
    request.resumed = 0
    note(notes, row, ARRIVED)
    queue.enter(core, row)
    return True


@compiled_in_place
def is_busy(state: EngineState) -> bool:
    """Whether vLLM takes a step: it does so also to report that the last request has ended."""
    engine = state.engine[0]
    return bool(engine.left < engine.arrived or engine.ended > 0)


@compiled_in_place
def take_hooked_step(state: EngineState, core: Core, notes: Notes) -> bool:
    """One step, if vLLM takes one; False if there was nothing to compute."""
    state.engine[0].scheduled = state.engine[0].preempted = 0
    if is_busy(state):
        _step(state, core, notes)
    return bool(state.engine[0].scheduled > 0)


@compiled_in_place
def _cached(state: EngineState, row: int) -> int:
    """Tokens of a request that the KV cache holds now."""
    return _cached_of(state, row, state.progress[row].known)


@compiled_in_place
def _cached_of(state: EngineState, row: int, tokens: int) -> int:
    pool = state.kv.pool[0]
    if not pool.caching:
        return 0
    most = (tokens - 1) // pool.block_size
    return int(find(state.kv, row, next_slot(state.kv), most)[0] * pool.block_size)


@compiled_in_place
def _step(state: EngineState, core: Core, notes: Notes) -> None:
    engine, hook, began_s = state.engine[0], core.engine[0], state.engine[0].now_s
    begin_step(core, began_s)
    if hook.prefix_caching:
        for row in queue.to_look_up(core):
            if row != NONE:
                before = core.requests[row].prompt_tokens
                if batch.refresh(core, row, _cached(state, row)):
                    queue.look_again(core, row, before)
    tell(state, core)
    plan(core)
    count, was, visible = hook.running, notes.was, 0
    engine.looked_at += count
    for i in range(count):
        was[i] = core.running[i]
        if not core.requests[was[i]].hidden:
            state.running[visible] = was[i]
            visible += 1
    engine.running = visible
    engine.token_budget, engine.max_active = hook.budget, hook.max_active
    engine.long_prefill_threshold = hook.threshold
    begin_vllm_step(state, visible + hook.waiting)
    _serve_running(state, core)
    _admit(state, core, notes)
    if len(state.log):
        log_step(state)
    if engine.scheduled:
        _measure(state, core, notes, count)
    else:
        _bring_back(state, core, notes, count)


@compiled_in_place
def tell(state: EngineState, core: Core) -> None:
    """What the hook sees of vLLM before a step."""
    engine, hook, pool = state.engine[0], core.engine[0], state.kv.pool[0]
    hook.running = engine.running
    for i in range(engine.running):
        row = state.running[i]
        core.running[i] = row
        _follow(state, core, row)
    hook.free_blocks, hook.start_s = pool.free, engine.now_s
    hook.head_can_start = hook.waiting > 0
    usable = hook.kv_blocks - 1
    hook.used_blocks = int(np.rint((1.0 - pool.free / usable) * hook.kv_blocks))


@compiled_in_place
def _follow(state: EngineState, core: Core, row: int) -> None:
    one, request = state.progress[row], core.requests[row]
    request.computed_tokens, request.output_tokens = one.computed, one.known - one.prompt


@compiled_in_place
def _serve_running(state: EngineState, core: Core) -> None:
    """Running requests in order; who is preempted goes into the policy's queue."""
    engine = state.engine[0]
    while engine.scheduled < engine.running and engine.budget_left > 0:
        if serve_next(state):
            continue
        last = preempt_last(state)
        batch.remove(core, last)
        batch.refresh(core, last, _cached(state, last))
        core.requests[last].resumed = core.requests[last].attained_tokens > 0
        queue.enter_first(core, last)
    engine.admitted = engine.scheduled


@compiled_in_place
def _admit(state: EngineState, core: Core, notes: Notes) -> None:
    engine, hook = state.engine[0], core.engine[0]
    if engine.preempted == 0:
        while hook.waiting and engine.budget_left > 0 and engine.running < engine.max_active:
            row = queue.pick(core)
            if not start(state, row):
                break
            queue.take(core)
            _follow(state, core, row)
            core.requests[row].computed_tokens -= state.tokens[engine.running - 1]
            mean = predicted(notes.lengths, notes.histograms, core.requests[row].group)[0]
            if not core.requests[row].admitted:
                note(notes, row, ADMITTED)
            batch.admit(core, row, mean)
    for i in range(engine.admitted, engine.scheduled):
        row = state.running[i]
        one = state.progress[row]
        queue.started(core, row, one.known - one.computed + state.tokens[i])
    hook.taken = 0


@compiled_in_place
def _measure(state: EngineState, core: Core, notes: Notes, count: int) -> None:
    """The step is carried out, and the hook learns from it."""
    engine, began_s = state.engine[0], state.engine[0].now_s
    prefill_tokens, decodes, context, square, full = batch.note_scheduled(
        core, state.running[: engine.scheduled], state.tokens[: engine.scheduled], False
    )
    finish_step(state)
    now_s = engine.now_s
    for i in range(engine.ended):
        batch.leave(core, state.ended[i])
        note(notes, state.ended[i], LEFT_ENGINE)
    batch.learn_step(core, prefill_tokens, decodes, context, square, now_s - began_s, full)
    _bring_back(state, core, notes, count)
    for i in range(engine.running):
        core.running[i] = state.running[i]
        _follow(state, core, state.running[i])
    batch.note_tokens(core, engine.running, now_s, notes.groups, notes.gaps_s)
    for i in range(engine.ended):
        row = state.ended[i]
        tokens = state.progress[row].known - state.progress[row].prompt
        learn(notes.lengths, notes.histograms, core.requests[row].group, tokens)


@compiled_in_place
def _bring_back(state: EngineState, core: Core, notes: Notes, count: int) -> None:
    """Those that sat out run again, in their old places: the last is the next victim."""
    engine, hook = state.engine[0], core.engine[0]
    if hook.yielding + hook.resting == 0:
        return
    stays, kept, place = notes.stays, 0, 0
    for i in range(engine.running):
        stays[i] = state.running[i]
    for k in range(count):
        row = notes.was[k]
        if core.requests[row].hidden:
            state.running[place] = row
            place += 1
        elif kept < engine.running and stays[kept] == row:
            state.running[place] = row
            place += 1
            kept += 1
    for i in range(kept, engine.running):
        state.running[place] = stays[i]
        place += 1
    engine.running = place


@compiled_in_place
def put_back_hooked(
    state: EngineState, core: Core, notes: Notes, runs: np.ndarray, decodes: np.ndarray,
    prefill_s_per_token: float,
) -> None:  # fmt: skip
    """Hold the first rows, requests of another engine, as `virtual_resume.put_back` does.

    Args:
        state: with their progress.
        core: with these rows filled in.
        notes: of the engine.
        runs: which ran, shape (begun,).
        decodes: whose prompt is computed, shape (begun,).
        prefill_s_per_token: as measured there; 0 is unknown.
    """
    engine, hook = state.engine[0], core.engine[0]
    engine.arrived = len(runs)
    count = context = 0
    for row in range(len(runs)):
        lane = core.tenants[core.requests[row].tenant]
        lane.ahead_s = min(lane.ahead_s, core.requests[row].arrival_s)
        count += decodes[row]
        context += decodes[row] * state.progress[row].computed
    hook.last_step_s = step_seconds(core.cost, 0, count, context, 0)
    if prefill_s_per_token > 0.0:
        hook.full_s, hook.full_tokens = prefill_s_per_token * FULL_TOKENS, FULL_TOKENS
    queue.set_load(core, 0.0, prefill_rate(core), decode_rate(core))
    for row in range(len(runs)):
        one = state.progress[row]
        if not one.fits:
            one.state = REJECTED
            engine.left += 1
        elif runs[row] and put_running(state, row):
            _arrive_begun(state, core, notes, row, one.prompt if decodes[row] else one.known)
            request = core.requests[row]
            request.output_tokens = 0 if decodes[row] else one.known - one.prompt
            request.computed_tokens = one.computed
            batch.admit(core, row, request.expected_tokens)
            if decodes[row]:
                batch.begin_decoding(core, row)
                request.seen_tokens = one.known - one.prompt
        else:
            came_back = not np.isnan(one.admitted_s) or one.known > one.prompt
            one.state = PREEMPTED if came_back else WAITING
            one.computed = 0
    for place in (PREEMPTED, WAITING):  # vLLM puts preempted requests in front
        for row in range(len(runs)):
            one, request = state.progress[row], core.requests[row]
            if one.state == place:
                hold_prefix(state.kv, row, one.known, state.held_tokens[row])
                _arrive_begun(state, core, notes, row, one.known)
                _follow(state, core, row)
                if request.output_tokens:
                    batch.refresh(core, row, _cached(state, row))
                request.resumed = request.output_tokens > 0
                queue.enter(core, row)


@compiled_in_place
def _arrive_begun(state: EngineState, core: Core, notes: Notes, row: int, tokens: int) -> None:
    """It comes in with so many tokens known: vLLM admits a decode before its answer is there."""
    one, request = state.progress[row], core.requests[row]
    request.cached_tokens = notes.cached[row] = _cached_of(state, row, tokens)
    mean, q90 = predicted(notes.lengths, notes.histograms, request.group)
    batch.arrive(core, row, mean, q90)
    note(notes, row, ARRIVED)
    request.admitted = not np.isnan(one.admitted_s)
    if not np.isnan(one.first_token_s):
        request.first_token_s = one.first_token_s
