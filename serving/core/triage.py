"""If not all waiting requests can meet their deadlines, which are moved back? The rule `triage`.

Past saturation, an order by deadline spends itself on requests that are about to miss. A fixed
preference for short prompts prevents this, but is right for one load only. Triage asks what fits.
"""

from serving.core.dearest import entry_of, exchange, push, row_of, tokens_of
from serving.core.jit import compiled_in_place
from serving.core.parkable import drop, join, may_park
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

    O(n) of those that may be parked, when it is due, and O(m log m) of the m new ones.
    """
    engine, requests = core.engine[0], core.requests
    if not engine.triage or engine.now_s < engine.triage_due_s:
        return
    engine.triage_due_s = engine.now_s + PAUSE_S * engine.waiting
    count = _by_deadline(core)
    rows, kept = core.picked[0], core.picked[1]  # the costliest of `kept` in front
    rate, done_s, held, pushed = ROUGHLY * engine.prefill_s_per_token, engine.now_s, 0, 0
    for i in range(count):
        one = requests[rows[i]]
        one.gives_up = 0
        done_s += one.prompt_tokens * rate
        if done_s <= one.deadline_s:
            continue
        while pushed < i:  # as long as all are in time, nobody asks which is the costliest
            entry = entry_of(rows[pushed], requests[rows[pushed]].prompt_tokens)
            push(core.places, kept, held, entry)
            held, pushed = held + 1, pushed + 1
        pushed = i + 1
        dearest = exchange(core.places, kept, held, entry_of(rows[i], one.prompt_tokens))
        done_s -= tokens_of(dearest) * rate
        requests[row_of(dearest)].gives_up = 1
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
def _by_deadline(core: Core) -> int:
    """Rows that may be parked into `picked[0]`, the earliest deadline first, ties by order.

    Returns how many there are. Others that are parked come back. Those that are not in order since
    the last pass, mostly new ones, are sorted apart and merged.
    """
    requests, ranks, rows, new = core.requests, core.ranks, core.picked[0], core.picked[1]
    row, kept, found = core.engine[0].earliest, 0, 0
    while row != NONE:
        one = requests[row]
        if one.facts & PARKED and not may_park(core, row):
            _park_or_not(core, row)
        if not may_park(core, row):
            drop(core, row)
        elif kept and _is_due_before(core, row, rows[kept - 1]):
            ranks[row, 0], ranks[row, 1] = one.deadline_s, core.places[row, ORDER]
            new[found] = row
            found += 1
        else:
            rows[kept] = row
            kept += 1
        row = one.later
    if found:
        sort(ranks, new, found)
        _merge(core, kept, found)
    return kept + found


@compiled_in_place
def _merge(core: Core, kept: int, found: int) -> None:
    """The first rows of `picked[1]` into those of `picked[0]`, and the list follows."""
    rows, new, count = core.picked[0], core.picked[1], kept + found
    place = count
    while found:
        place -= 1
        if kept and _is_due_before(core, new[found - 1], rows[kept - 1]):
            kept -= 1
            rows[place] = rows[kept]
        else:
            found -= 1
            rows[place] = new[found]
    # All before that place are linked as they were.
    core.engine[0].latest = rows[place - 1] if place else NONE
    for i in range(place, count):
        join(core, rows[i])


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
