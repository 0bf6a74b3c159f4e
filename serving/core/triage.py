"""If not all waiting requests can meet their deadlines, which are moved back? The rule `triage`.

Past saturation, an order by deadline spends itself on requests that are about to miss. A fixed
preference for short prompts prevents this, but is right for one load only. Triage asks what fits.
"""

from serving.core.dearest import entry_of, exchange, is_dearer, push, row_of
from serving.core.jit import compiled_in_place
from serving.core.parkable import drop, link, may_park
from serving.core.queue import place_anew, place_many_anew
from serving.core.sorting import sort
from serving.core.standing import PARKED
from serving.core.state import LATER, NONE, ORDER, Core

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

    Where weights differ the least weight is to be parked, which is NP-hard (Karp 1972). Who takes
    most time for its weight goes, one after the other, until there is room: greedy, and exact where
    no longer prompt weighs more (Lawler 1976, sequencing to minimize the weighted number of tardy
    jobs).

    O(n) of those that may be parked, when it is due, and O(m log m) of the m new ones. Most of
    those that are parked now will be again. So only they are in a heap; of the others the costliest
    is enough, until it is the costliest of all.
    """
    engine, requests, places = core.engine[0], core.requests, core.places
    if not engine.triage or engine.now_s < engine.triage_due_s:
        return
    engine.triage_due_s = engine.now_s + PAUSE_S * engine.waiting
    new = _new_ones(core)
    others, heap = core.picked[0], core.picked[1]
    rate, done_s, last = ROUGHLY * engine.prefill_s_per_token, engine.now_s, len(others)
    lost, aside, held, most = last, 0, 0, NONE  # `others` has those given up anew from `lost` on
    this, row, new = _next_due(core, engine.earliest, new)
    while this != NONE:
        one, freed = requests[this], 0
        done_s += one.prompt_tokens * rate
        is_late, dearest = done_s > one.deadline_s, entry_of(this, one.prompt_tokens, one.weight)
        is_most = most == NONE or is_dearer(places, dearest, most)
        stays = not is_late or not is_most or (held > 0 and is_dearer(places, heap[0], dearest))
        if stays and one.facts & PARKED:
            push(places, heap, held, dearest)
            held += 1
        elif stays:
            others[aside] = this
            aside += 1
            most = dearest if is_most else most
        # Before this one came, all were in time.
        while freed < one.prompt_tokens and done_s > one.deadline_s:
            if stays:
                if most != NONE and (held == 0 or is_dearer(places, most, heap[0])):
                    held = _push(core, aside, held)
                    aside, most = 0, NONE
                held -= 1
                dearest = exchange(places, heap, held, heap[held])
            gone = requests[row_of(dearest)]
            freed += gone.prompt_tokens
            done_s -= gone.prompt_tokens * rate
            if not gone.facts & PARKED:
                lost -= 1
                others[lost] = row_of(dearest)
        this, row, new = _next_due(core, row, new)
    engine.last_seen = engine.latest
    engine.parked += last - lost
    for i in range(held):  # who was parked and is kept now, comes back
        if requests[row_of(heap[i])].facts & PARKED:
            lost -= 1
            others[lost] = row_of(heap[i])
    for i in range(lost, last):
        requests[others[i]].facts ^= PARKED
    place_many_anew(core, others[lost:])


@compiled_in_place
def forget_parked(core: Core) -> None:
    """Nothing is parked: triage was switched on or off."""
    while core.engine[0].latest != NONE:
        core.requests[core.engine[0].latest].facts &= ~PARKED
        drop(core, core.engine[0].latest)


@compiled_in_place
def _push(core: Core, count: int, held: int) -> int:
    """The first of `picked` join the heap; its new length."""
    for i in range(count):
        row = core.picked[0][i]
        one = core.requests[row]
        push(core.places, core.picked[1], held, entry_of(row, one.prompt_tokens, one.weight))
        held += 1
    return held


@compiled_in_place
def _next_due(core: Core, row: int, new: int) -> tuple[int, int, int]:
    """Who is due next: of the list from `row` on, and of the new ones, whom it joins.

    Returns:
        the request, and what follows in both.
    """
    while row != NONE and not _is_still_parkable(core, row):
        row = core.neighbours[row, LATER]
    if new != NONE and (row == NONE or _is_due_before(core, new, row)):
        after = core.neighbours[new, LATER]
        link(core, new, row)
        return new, row, after
    return row, NONE if row == NONE else core.neighbours[row, LATER], new


@compiled_in_place
def _new_ones(core: Core) -> int:
    """Take those that joined since the last pass out of the list, and sort them by deadline.

    Returns the first one; `later` leads to the next.
    """
    engine, requests, ranks, new = core.engine[0], core.requests, core.ranks, core.picked[1]
    neighbours = core.neighbours
    last, found = engine.last_seen, 0
    row = engine.earliest if last == NONE else neighbours[last, LATER]
    while row != NONE:
        if _is_still_parkable(core, row):
            ranks[row, 0], ranks[row, 1] = requests[row].deadline_s, core.places[row, ORDER]
            new[found] = row
            found += 1
        row = neighbours[row, LATER]
    engine.latest = last
    if last == NONE:
        engine.earliest = NONE
    else:
        neighbours[last, LATER] = NONE
    sort(ranks, new, found)
    for i in range(found):
        neighbours[new[i], LATER] = new[i + 1] if i + 1 < found else NONE
    return int(new[0]) if found else NONE


@compiled_in_place
def _is_still_parkable(core: Core, row: int) -> bool:
    """Those that are not leave the list, and come back if they were parked."""
    if not may_park(core, row):
        if core.requests[row].facts & PARKED:
            core.requests[row].facts ^= PARKED
            place_anew(core, row)
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
