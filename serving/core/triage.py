"""If not all waiting requests can meet their deadlines, which are moved back? The rule `triage`.

Past saturation, an order by deadline spends itself on requests that are about to miss. A fixed
preference for short prompts prevents this, but is right for one load only. Triage asks what fits.
"""

from serving.core.dearest import entry_of, exchange, is_dearer, push, row_of, tokens_of
from serving.core.jit import compiled_in_place
from serving.core.parkable import drop, link, may_park
from serving.core.queue import place_anew
from serving.core.sorting import sort
from serving.core.standing import PARKED
from serving.core.state import NONE, ORDER, Core

# Not every step is full of prompts, as `prefill_s_per_token` has it. Chosen among 1, 1.2, 1.5 and 2
# on seeds that no published figure uses.
ROUGHLY = 1.2
# A pass comes so many seconds after the last one for each request that waits: in every step while a
# few hundred wait, three times a second with 10,000, and every 3 s with 100,000, so that it costs a
# few percent at most.
PAUSE_S = 3e-5


@compiled_in_place
def triage(core: Core) -> None:
    """Park the fewest requests such that the others meet their deadlines, one after the other.

    Moore 1968 (an n job, one machine sequencing algorithm for minimizing the number of late
    jobs), by Hodgson: go through them by deadline, and when one would be late, give up the
    costliest so far. Repeated all the time, because requests come and costs are estimates: a
    parked request comes back when there is room. Never parked are best-effort requests, and
    requests that have waited beyond the ceiling or begun to answer; hopeless ones are left out.

    O(n) of those that may be parked, when it is due, and O(m log m) of the m new ones. Most of
    those that are parked now will be again. So only they are in a heap; of the others the costliest
    is enough, until it is the costliest of all.
    """
    engine, requests = core.engine[0], core.requests
    if not engine.triage or engine.now_s < engine.triage_due_s:
        return
    engine.triage_due_s = engine.now_s + PAUSE_S * engine.waiting
    new = _new_ones(core)
    rows, heap = core.picked[0], core.picked[1]
    rate, done_s = ROUGHLY * engine.prefill_s_per_token, engine.now_s
    count, held, pushed, most = 0, 0, 0, NONE
    row = engine.earliest
    while row != NONE or new != NONE:
        if row != NONE and not _is_still_parkable(core, row):
            row = requests[row].later
            continue
        if new != NONE and (row == NONE or _is_due_before(core, new, row)):
            this, new = new, requests[new].later
            link(core, this, row)
        else:
            this, row = row, requests[row].later
        one = requests[this]
        rows[count] = this
        count += 1
        one.gives_up = 0
        done_s += one.prompt_tokens * rate
        entry = entry_of(this, one.prompt_tokens)
        if one.facts & PARKED:
            push(core.places, heap, held, entry)
            held += 1
        elif most == NONE or is_dearer(core.places, entry, most):
            most = entry
        if done_s <= one.deadline_s:
            continue
        if most != NONE and (held == 0 or is_dearer(core.places, most, heap[0])):
            held = _push_others(core, pushed, count, held)
            pushed, most = count, NONE
        held -= 1
        dearest = exchange(core.places, heap, held, heap[held])
        done_s -= tokens_of(dearest) * rate
        requests[row_of(dearest)].gives_up = 1
    engine.last_seen = engine.latest
    for i in range(count):
        one = requests[rows[i]]
        if one.gives_up != (one.facts & PARKED > 0):
            engine.parked += one.gives_up
            _park_or_not(core, rows[i])


@compiled_in_place
def forget_parked(core: Core) -> None:
    """Nothing is parked: triage was switched on or off."""
    while core.engine[0].latest != NONE:
        core.requests[core.engine[0].latest].facts &= ~PARKED
        drop(core, core.engine[0].latest)


@compiled_in_place
def _push_others(core: Core, first: int, count: int, held: int) -> int:
    """Of the rows in these places, those that are not parked join the heap; its new length."""
    for i in range(first, count):
        row = core.picked[0][i]
        one = core.requests[row]
        if not one.facts & PARKED:
            push(core.places, core.picked[1], held, entry_of(row, one.prompt_tokens))
            held += 1
    return held


@compiled_in_place
def _new_ones(core: Core) -> int:
    """Take those that joined since the last pass out of the list, and sort them by deadline.

    Returns the first one; `later` leads to the next.
    """
    engine, requests, ranks, new = core.engine[0], core.requests, core.ranks, core.picked[1]
    last, found = engine.last_seen, 0
    row = engine.earliest if last == NONE else requests[last].later
    while row != NONE:
        if _is_still_parkable(core, row):
            ranks[row, 0], ranks[row, 1] = requests[row].deadline_s, core.places[row, ORDER]
            new[found] = row
            found += 1
        row = requests[row].later
    engine.latest = last
    if last == NONE:
        engine.earliest = NONE
    else:
        requests[last].later = NONE
    sort(ranks, new, found)
    for i in range(found):
        requests[new[i]].later = new[i + 1] if i + 1 < found else NONE
    return int(new[0]) if found else NONE


@compiled_in_place
def _is_still_parkable(core: Core, row: int) -> bool:
    """Those that are not leave the list, and come back if they were parked."""
    if not may_park(core, row):
        if core.requests[row].facts & PARKED:
            _park_or_not(core, row)
        if not may_park(core, row):
            drop(core, row)
            return False
    return True


@compiled_in_place
def _is_due_before(core: Core, row: int, other: int) -> bool:
    due_s, other_s = core.requests[row].deadline_s, core.requests[other].deadline_s
    if due_s == other_s:
        return bool(core.places[row, ORDER] < core.places[other, ORDER])
    return bool(due_s < other_s)


@compiled_in_place
def _park_or_not(core: Core, row: int) -> None:
    core.requests[row].facts ^= PARKED
    place_anew(core, row)
