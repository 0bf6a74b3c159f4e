"""Which waiting request is served next? Owed to a floor, first or resumed, else by key.

A heap of places per lane, and one of dues: a request becomes hopeless, has waited too long, or its
tenant's bucket covers it again. Whatever else moves keys (another policy, load or cost) re-keys the
whole queue at once.
"""

import math

import numpy as np

from serving.core import heap, parkable
from serving.core.jit import compiled, compiled_in_place
from serving.core.keys import key_of
from serving.core.standing import (
    DEMOTED,
    FIRST,
    HOPELESS,
    NORMAL,
    STARVED,
    hopeless_s,
    see,
    standing_of,
)
from serving.core.state import KEY, KEY_2, NONE, ORDER, STANDING, Core
from serving.core.tenants import admit, begin_backlog, overdraw, take_back

_COST_STEP = 0.25  # a token's cost that moves by so much calls for new keys and standings
_MANY = 4  # one place in so many that is found anew costs as much as all heaps built anew


@compiled_in_place
def enter(core: Core, row: int) -> None:
    """Queue a request behind all others of equal key."""
    engine, one = core.engine[0], core.requests[row]
    engine.last += 1
    core.places[row, ORDER] = engine.last
    _begin(core, row)
    if engine.buckets:
        work_s = one.prompt_tokens * engine.prefill_s_per_token
        work_s += one.predicted_output_tokens * engine.decode_s_per_token
        one.conforms_s = overdraw(core, one.tenant, one.arrival_s, work_s)
        engine.over_share += one.conforms_s > one.arrival_s
    _insert(core, row)


@compiled_in_place
def enter_first(core: Core, row: int) -> None:
    """Queue a preempted request before all others of equal key."""
    engine = core.engine[0]
    engine.first -= 1
    core.places[row, ORDER] = engine.first
    _begin(core, row)
    _insert(core, row)


@compiled_in_place
def put_back(core: Core, row: int) -> None:
    """A request that was taken in this very step could not start: nothing has happened."""
    engine, one = core.engine[0], core.requests[row]
    take_back(core, one.tenant, one.charged, one.lowered)
    engine.floor_served -= one.floor
    engine.ceiling_served -= one.ceiling
    if engine.first != engine.first_then:  # it goes before one that was preempted since
        engine.first -= 1
        core.places[row, ORDER] = engine.first
    _insert(core, row)
    if row == engine.turn_then:  # all that vLLM skips in every step have their turn, too
        engine.turn = row


@compiled_in_place
def pick(core: Core) -> int:
    """The request to serve next, NONE when nothing waits; notes whether a floor is owed it."""
    tenants, engine = core.tenants, core.engine[0]
    best, most = NONE, 0.0
    for i in range(engine.lanes):
        lane = tenants[i]
        if lane.floor > 0.0 and lane.owed > 0.0 and lane.waiting:
            spare = lane.owed - max(1, core.requests[lane.first].prompt_tokens)
            if spare >= most:
                best, most = lane.first, spare
    engine.owed = best != NONE
    if engine.owed:
        return best
    least = math.inf
    for i in range(engine.lanes):
        lane = tenants[i]
        if lane.first == NONE:
            continue
        if engine.shares and lane.work != least and best != NONE:
            if lane.work > least:
                continue
        elif best != NONE and not heap.is_before(core.places, lane.first, best):
            continue
        best, least = lane.first, lane.work
    return best


@compiled_in_place
def take(core: Core) -> int:
    """Remove and return the request to serve next; NONE when nothing waits."""
    row = pick(core)
    if row == NONE:
        return NONE
    engine, one = core.engine[0], core.requests[row]
    if not engine.taken:
        engine.first_then, engine.turn_then = engine.first, engine.turn
    engine.taken += 1
    leave(core, row)
    one.floor = engine.owed
    one.ceiling = core.places[row, STANDING] == FIRST and not one.resumed
    engine.floor_served += one.floor
    engine.ceiling_served += one.ceiling
    one.charged = one.prompt_tokens
    one.lowered = admit(core, one.tenant, one.charged)
    return row


@compiled_in_place
def started(core: Core, row: int, tokens: int) -> None:
    """A request that was taken has so many prompt tokens to compute: its tenant pays these."""
    one = core.requests[row]
    if tokens != one.charged:
        take_back(core, one.tenant, one.charged, one.lowered)
        one.lowered = admit(core, one.tenant, tokens)
        one.charged = tokens


@compiled_in_place
def leave(core: Core, row: int) -> None:
    """A request waits no more."""
    engine, one = core.engine[0], core.requests[row]
    lane = core.tenants[one.tenant]
    lane.first = heap.remove(core.places, core.place_links, lane.first, row)
    if core.dues[row, 0] < math.inf:
        engine.due = heap.remove(core.dues, core.due_links, engine.due, row)
    before, behind = one.before, one.behind
    if before == NONE:
        engine.front = behind
    else:
        core.requests[before].behind = behind
    if behind == NONE:
        engine.back = before
    else:
        core.requests[behind].before = before
    if engine.turn == row:
        engine.turn = behind
    if one.listed:
        parkable.drop(core, row)
    one.queued = 0
    lane.waiting -= 1
    engine.waiting -= 1
    if one.standing != DEMOTED:
        engine.backlog_tokens -= one.prompt_tokens


@compiled_in_place
def to_look_up(core: Core) -> tuple[int, int]:
    """Two requests whose cached prefix is due for another look: a new head, and all in turn.

    NONE where there is none.
    """
    engine, head = core.engine[0], pick(core)
    if head == NONE:
        return NONE, NONE
    is_new, engine.looked_up = head != engine.looked_up, head
    return head if is_new else _in_turn(core), _in_turn(core) if engine.waiting > 1 else NONE


@compiled_in_place
def look_again(core: Core, row: int, before: int) -> None:
    """A waiting request had `before` prompt tokens to compute, and has others now."""
    one = core.requests[row]
    if one.standing != DEMOTED:
        core.engine[0].backlog_tokens += one.prompt_tokens - before
    place_anew(core, row)


@compiled_in_place
def advance(core: Core, now_s: float) -> None:
    """Apply what is due by now. Amortised O(log n) per event."""
    engine = core.engine[0]
    engine.now_s = now_s
    while engine.due != NONE and core.dues[engine.due, 0] <= now_s:
        row = engine.due
        before = core.requests[row].standing
        place_anew(core, row)
        engine.demoted += core.requests[row].standing == DEMOTED and before != DEMOTED


@compiled_in_place
def set_load(core: Core, load: float, prefill_s: float, decode_s: float) -> None:
    """Take over load and costs per token; keys and standings follow if these have moved."""
    engine = core.engine[0]
    stale = engine.follows_load and load != engine.load
    moved = abs(decode_s - engine.decode_s_per_token) > _COST_STEP * engine.decode_s_per_token
    stale = stale or (engine.needs_lengths and moved)
    engine.load = load
    if stale or not engine.needs_lengths:  # else new keys must compare with those there are
        engine.prefill_s_per_token, engine.decode_s_per_token = prefill_s, decode_s
    judged, rate = engine.judged_rate, engine.prefill_s_per_token
    if stale or abs(rate - judged) > _COST_STEP * judged:
        place_all_anew(core)


@compiled_in_place
def place_all_anew(core: Core) -> None:
    """Standings and keys of all that wait, by the decision in force and what things cost now. O(n).

    If a key is no number, `engine.broken` is set: whoever drives the core then takes `fcfs`.
    """
    core.engine[0].judged_rate = core.engine[0].prefill_s_per_token
    _queue_anew(core, True)


@compiled_in_place
def place_many_anew(core: Core, rows: np.ndarray) -> None:
    """Something of these waiting requests has changed: find their places again."""
    if _MANY * len(rows) < core.engine[0].waiting:
        for row in rows:
            place_anew(core, row)
        return
    for row in rows:
        _judge(core, row)
    _queue_anew(core, False)


@compiled_in_place
def _queue_anew(core: Core, judges: bool) -> None:
    """Build the heaps of all that wait, and judge each one before that, or none."""
    engine, requests = core.engine[0], core.requests
    engine.due = NONE
    for i in range(engine.lanes):
        core.tenants[i].first = NONE
    row = engine.front
    while row != NONE:
        if judges:
            _judge(core, row)
        lane = core.tenants[requests[row].tenant]
        lane.first = heap.chain(core.place_links, lane.first, row)
        if core.dues[row, 0] < math.inf:
            engine.due = heap.chain(core.due_links, engine.due, row)
        row = requests[row].behind
    for i in range(engine.lanes):
        lane = core.tenants[i]
        lane.first = heap.join(core.places, core.place_links, lane.first)
    engine.due = heap.join(core.dues, core.due_links, engine.due)


@compiled_in_place
def place_of(core: Core, row: int, prompt_tokens: int) -> tuple[int, float, float]:
    """Standing and key of a request whose prefill has begun, with so many tokens left of it."""
    one, engine = core.requests[row], core.engine[0]
    facts = 0
    if one.attained_tokens > 0 or one.arrival_s + engine.max_wait_s <= engine.now_s:
        facts |= STARVED
    if hopeless_s(one.deadline_s, prompt_tokens, engine.prefill_s_per_token) <= engine.now_s:
        facts |= HOPELESS
    standing = standing_of(core, facts)
    if standing == FIRST:
        return standing, one.arrival_s, 0.0
    first, second = key_of(core, row, prompt_tokens)
    return standing, first, second


@compiled
def waiting_rows(core: Core) -> np.ndarray:
    """Rows of all waiting requests, in the order of queueing."""
    rows, row = np.empty(core.engine[0].waiting, np.int64), core.engine[0].front
    for i in range(len(rows)):
        rows[i] = row
        row = core.requests[row].behind
    return rows


@compiled_in_place
def _in_turn(core: Core) -> int:
    engine = core.engine[0]
    row = engine.front if engine.turn == NONE else engine.turn
    engine.turn = core.requests[row].behind
    return int(row)


@compiled_in_place
def _begin(core: Core, row: int) -> None:
    one = core.requests[row]
    one.facts, one.standing, one.conforms_s = 0, NORMAL, -math.inf
    if core.engine[0].looked_up == row:
        core.engine[0].looked_up = NONE  # that was another request
    if not core.tenants[one.tenant].waiting:
        begin_backlog(core, one.tenant)


@compiled_in_place
def _insert(core: Core, row: int) -> None:
    engine, one = core.engine[0], core.requests[row]
    one.queued, one.before, one.behind = 1, engine.back, NONE
    if engine.back == NONE:
        engine.front = row
    else:
        core.requests[engine.back].behind = row
    engine.back = row
    core.tenants[one.tenant].waiting += 1
    engine.waiting += 1
    if one.standing != DEMOTED:
        engine.backlog_tokens += one.prompt_tokens
    _place(core, row)


@compiled_in_place
def place_anew(core: Core, row: int) -> None:
    """Something of a waiting request has changed: find its place again."""
    lane, engine = core.tenants[core.requests[row].tenant], core.engine[0]
    lane.first = heap.remove(core.places, core.place_links, lane.first, row)
    if core.dues[row, 0] < math.inf:
        engine.due = heap.remove(core.dues, core.due_links, engine.due, row)
    _place(core, row)


@compiled_in_place
def _place(core: Core, row: int) -> None:
    """Find the place of a request that is in no heap, and put it there."""
    engine, lane = core.engine[0], core.tenants[core.requests[row].tenant]
    _judge(core, row)
    if core.dues[row, 0] < math.inf:
        engine.due = heap.insert(core.dues, core.due_links, engine.due, row)
    lane.first = heap.insert(core.places, core.place_links, lane.first, row)


@compiled_in_place
def _judge(core: Core, row: int) -> None:
    """Find out where a waiting request stands, and when that may change."""
    engine, one, place = core.engine[0], core.requests[row], core.places[row]
    core.dues[row, 0], core.dues[row, 1] = see(core, row), place[ORDER]
    standing = standing_of(core, one.facts)
    if standing == FIRST:
        place[KEY], place[KEY_2] = one.arrival_s, 0.0
    else:
        place[KEY], place[KEY_2] = key_of(core, row, one.prompt_tokens)
    place[STANDING] = standing
    if standing != one.standing:
        if (standing == DEMOTED) != (one.standing == DEMOTED):
            sign = -1 if standing == DEMOTED else 1
            engine.backlog_tokens += sign * one.prompt_tokens
        one.standing = standing
        if standing > NORMAL and math.isnan(one.deprioritised_s[standing - 1]):
            one.deprioritised_s[standing - 1] = max(0.0, engine.now_s - one.arrival_s)
    if engine.triage and not one.listed and parkable.may_park(core, row):
        parkable.join(core, row)
