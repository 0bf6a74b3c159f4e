"""What is planned for the coming step? Order of the running list, token budget, admission.

The driver calls `begin_step`, looks up cached prefixes, notes what vLLM says of itself in `engine`,
and calls `plan`. Each rule acts only if the limits in force switch it on, and counts what it did.
"""

import math

from serving.core import passing
from serving.core.decoding import look, slack_budget
from serving.core.jit import compiled_in_place
from serving.core.pacing import rest
from serving.core.queue import advance, pick, place_of, set_load
from serving.core.sorting import sort
from serving.core.standing import hopeless_s
from serving.core.state import NONE, Core
from serving.core.triage import triage

SLIDE_PERIOD_S = 0.5
_LOW, _HIGH, _LOAD_STEP, _HYSTERESIS = 0.5, 1.5, 0.25, 0.2
_SHORT_LAXITY = 0.25  # of the usual TTFT target: less is short
_SLOWEST = 10.0


@compiled_in_place
def prefill_rate(core: Core) -> float:
    """Seconds per prompt token while prompts fill the steps, decodes included."""
    engine, alone = core.engine[0], core.cost[0].per_prefill_token_s
    return float(min(max(alone, engine.full_s / engine.full_tokens), _SLOWEST * alone))


@compiled_in_place
def decode_rate(core: Core) -> float:
    """Engine seconds that one more output token costs in a step that runs anyway, tau."""
    engine, cost = core.engine[0], core.cost[0]
    context = engine.decode_shape[1] / max(1.0, engine.decode_shape[0])
    step_s = cost.per_decode_s + cost.per_context_token_s * context
    return float(step_s / engine.tokens_per_decode)


@compiled_in_place
def begin_step(core: Core, now_s: float) -> None:
    """The clock goes on: load, standings and triage follow."""
    engine = core.engine[0]
    if now_s >= engine.slide_due_s:
        engine.slide_due_s = now_s + SLIDE_PERIOD_S
        prefill_s = prefill_rate(core)
        backlog_s = engine.backlog_tokens * prefill_s
        load = slide(engine.load, backlog_s, engine.mean_ttft_target_s)
        set_load(core, load, prefill_s, decode_rate(core))
    advance(core, now_s)
    triage(core)


@compiled_in_place
def slide(load: float, backlog_s: float, horizon_s: float) -> float:
    """The load b of `slide`: 0 while queued prefill fits before its deadlines, 1 far beyond.

    b = (backlog / horizon - LOW) / (HIGH - LOW), clipped and rounded to quarters, with
    hysteresis, because every change re-keys the queue.
    """
    raw = (backlog_s / max(horizon_s, 1e-3) - _LOW) / (_HIGH - _LOW)
    raw = min(max(raw, 0.0), 1.0)
    if abs(raw - load) < _HYSTERESIS:
        return load
    return round(raw / _LOAD_STEP) * _LOAD_STEP


@compiled_in_place
def plan(core: Core) -> None:
    """Plan the coming step into `engine`, the running list and `hidden`. O(running).

    `running` is in vLLM's order before. Afterwards it is the order that vLLM shall have, if
    `reordered`, and `budget`, `threshold` and `max_active` hold for the requests not hidden.
    """
    engine, requests = core.engine[0], core.requests
    engine.reordered = engine.passes = 0
    engine.yielding = engine.resting = engine.partial = 0
    for i in range(engine.running):
        requests[core.running[i]].hidden = 0
    looks = engine.follow_slack or engine.pace_decodes
    if looks:
        look(core)
    if engine.follow_slack or engine.prefill_by_key or not engine.is_stock:
        _order_running(core)
    elif engine.max_partial_prefills or engine.aligned_block:
        for i in range(engine.running):
            engine.partial += is_partial(core, core.running[i])
    if engine.pace_decodes:
        rest(core, engine.partial > 0 or engine.waiting > 0)
    engine.budget = _whole_blocks(core, _token_budget(core, looks))
    # vLLM starts those first that hold remote KV. To hold them back would free nothing.
    kept = engine.running + engine.ready_elsewhere
    most = _most_running(core)
    engine.threshold = engine.long_prefill_threshold
    if engine.partial and has_room_for_head(core):
        room = engine.budget - (engine.running - engine.partial - engine.resting)
        passing.make_room(core, room)
    if engine.waiting and 0 < engine.max_partial_prefills <= engine.partial:
        engine.partial_held_steps += not engine.passes
        most = min(most, kept + engine.passes)
    # What is hidden is not in the batch that vLLM will see, so it does not count there.
    engine.max_active = most + engine.silent - engine.yielding - engine.resting


@compiled_in_place
def has_room_for_head(core: Core) -> bool:
    """Whether prompts that have begun may yield to the waiting head: not if it is not admitted."""
    engine = core.engine[0]
    return bool(engine.prefill_by_key and engine.waiting and _most_running(core) > engine.running)


@compiled_in_place
def _most_running(core: Core) -> int:
    # A session that waits for its client does not run, but keeps one of vLLM's slots.
    engine = core.engine[0]
    return int(min(engine.max_active_requests, engine.most_active - engine.silent))


@compiled_in_place
def is_partial(core: Core, row: int) -> bool:
    """Whether some of a running request's prompt is still to be computed."""
    one = core.requests[row]
    return bool(one.active and one.prefilling and one.computed_tokens < one.start_tokens)


@compiled_in_place
def _order_running(core: Core) -> None:
    """Decodes first, partial prefills by standing and key: the last is the next victim.

    So weights choose among prefills, by the key. Decodes stay in vLLM's order: the one that
    began last loses least.
    """
    engine, ranks, rows = core.engine[0], core.ranks, core.picked[0]
    found = others = 0
    for i in range(engine.running):
        row = core.running[i]
        if is_partial(core, row):
            standing, first, second = place_of(core, row, passing.rest_of(core, row))
            ranks[row, 0], ranks[row, 1], ranks[row, 2] = standing, first, second
            ranks[row, 3] = found
            rows[found] = row
            found += 1
        else:
            engine.reordered |= others != i
            core.running[others] = row
            others += 1
    sort(ranks, rows, found)
    for i in range(found):
        engine.reordered |= ranks[rows[i], 3] != i
        core.running[others + i] = rows[i]
    engine.partial = found


@compiled_in_place
def _token_budget(core: Core, looked: bool) -> int:
    engine = core.engine[0]
    running = engine.running - engine.resting
    if not engine.follow_slack or not looked or not running:
        return int(engine.token_budget)
    share, context = 0.0, 0
    first = core.running[engine.running - engine.partial] if engine.partial else NONE
    if engine.prefill_share > 0.0 and _prefill_is_late(core, first):
        share = engine.prefill_share
    if first != NONE:
        context = core.requests[first].computed_tokens
    budget = slack_budget(core, share, context)
    if share > 0.0 and budget < engine.token_budget:
        engine.share_raised_steps += budget > slack_budget(core, 0.0, context)
    # No decode is left out, nor are its draft tokens.
    drafts = 0
    if engine.drafts:
        for i in range(engine.running):
            one = core.requests[core.running[i]]
            drafts += engine.drafts * (one.decoding and not one.hidden)
    least = math.ceil(engine.turns * running)
    budget = min(engine.token_budget, max(budget + drafts, least))
    engine.slack_bound_steps += budget < engine.token_budget
    return int(budget)


@compiled_in_place
def _whole_blocks(core: Core, budget: int) -> int:
    """`budget`, or more of it where vLLM prefills whole blocks only and it has saved enough.

    Decodes take their tokens first. What they leave is saved up from step to step until
    it makes the block that the prompt in front needs, so that prompts move on at the
    rate that the budgets allow.
    """
    engine = core.engine[0]
    block = engine.aligned_block
    if not block or budget >= engine.most_tokens:
        return budget
    if engine.partial:
        row = NONE
        for i in range(engine.running):
            if row == NONE and is_partial(core, core.running[i]):
                row = core.running[i]
        begin, left = core.requests[row].computed_tokens, passing.rest_of(core, row)
    elif engine.waiting:
        row = pick(core)
        begin, left = core.requests[row].cached_tokens, core.requests[row].prompt_tokens
    else:
        return budget
    if row != engine.in_front or begin != engine.begins_at:  # another one, or it has moved on
        engine.in_front, engine.begins_at, engine.saved_tokens = row, begin, 0
    need = min(left, block - begin % block)
    others = engine.running - engine.partial - engine.resting
    room = max(1, budget - others * (1 + engine.drafts))
    engine.saved_tokens += room
    if room < need <= engine.saved_tokens:
        budget = min(engine.most_tokens, budget + need - room)
    return int(budget)


@compiled_in_place
def _prefill_is_late(core: Core, first: int) -> bool:
    """Whether the prompt in front is short of time but not hopeless, begun or waiting.

    Time given to a prefill that is late anyway is lost.
    """
    if first != NONE and _is_short(core, first, passing.rest_of(core, first)):
        return True
    head = pick(core)
    return head != NONE and _is_short(core, head, core.requests[head].prompt_tokens)


@compiled_in_place
def _is_short(core: Core, row: int, prompt_tokens: int) -> bool:
    engine, rate = core.engine[0], core.cost[0].per_prefill_token_s
    laxity_s = hopeless_s(core.requests[row].deadline_s, prompt_tokens, rate) - engine.now_s
    return bool(0.0 <= laxity_s < _SHORT_LAXITY * engine.mean_ttft_target_s)
