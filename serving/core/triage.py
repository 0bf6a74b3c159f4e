"""If not all waiting requests can meet their deadlines, which are moved back? The rule `triage`.

Past saturation, an order by deadline spends itself on requests that are about to miss. A fixed
preference for short prompts prevents this, but is right for one load only. Triage asks what fits.
"""

import numpy as np

from serving.core.jit import compiled_in_place
from serving.core.queue import place_anew
from serving.core.sorting import push, replace_first, sort
from serving.core.standing import PARKED
from serving.core.state import NONE, ORDER, Core

# Not every step is full of prompts, as `prefill_s_per_token` has it. Chosen among 1, 1.2, 1.5 and 2
# on seeds that no published figure uses.
ROUGHLY = 1.2
# A pass comes so many seconds after the last one for each request that waits: in every step while
# hundreds wait, and once a second with 100,000, so that it costs a few percent at most.
PAUSE_S = 1e-5


@compiled_in_place
def triage(core: Core) -> None:
    """Park the fewest requests such that the others meet their deadlines, one after the other.

    Moore 1968 (an n job, one machine sequencing algorithm for minimizing the number of late
    jobs), by Hodgson: go through them by deadline, and when one would be late, give up the
    costliest so far. Repeated all the time, because requests come and costs are estimates: a
    parked request comes back when there is room. Never parked are best-effort requests, and
    requests that have waited beyond the ceiling or begun to answer; hopeless ones are left out.

    O(n log n), when it is due.
    """
    engine, requests = core.engine[0], core.requests
    if not engine.triage or engine.now_s < engine.triage_due_s:
        return
    count = _by_deadline(core)
    engine.triage_due_s = engine.now_s + PAUSE_S * engine.waiting
    rows, kept, held = core.picked[0], core.picked[1], 0  # the costliest of `kept` in front
    rate, done_s = ROUGHLY * engine.prefill_s_per_token, engine.now_s
    for i in range(count):
        row, one = rows[i], requests[rows[i]]
        one.gives_up = 0
        work_s = one.prompt_tokens * rate
        core.ranks[row, 0], core.ranks[row, 1] = work_s, -core.places[row, ORDER]
        done_s += work_s
        if done_s <= one.deadline_s:
            push(core.ranks, kept, held, row)
            held += 1
        else:
            dearest = replace_first(core.ranks, kept, held, row)
            done_s -= core.ranks[dearest, 0]
            requests[dearest].gives_up = 1
    for i in range(count):
        one = requests[rows[i]]
        if one.gives_up != (one.facts & PARKED > 0):
            engine.parked += one.gives_up
            _park_or_not(core, rows[i])


@compiled_in_place
def forget_parked(core: Core) -> None:
    """Nothing is parked: triage was switched on or off."""
    row = core.engine[0].front
    while row != NONE:
        core.requests[row].facts &= ~PARKED
        row = core.requests[row].behind


@compiled_in_place
def _by_deadline(core: Core) -> int:
    """Rows that may be parked into `picked[0]`, the earliest deadline first, ties by order.

    Returns how many there are. Others that are parked come back.
    """
    requests, ranks, rows, count = core.requests, core.ranks, core.picked[0], 0
    row = core.engine[0].front
    while row != NONE:
        one = requests[row]
        if one.facts & ~PARKED:
            if one.facts & PARKED:
                _park_or_not(core, row)
        elif one.deadline_s < np.inf:
            ranks[row, 0], ranks[row, 1] = requests[row].deadline_s, core.places[row, ORDER]
            for column in range(2, ranks.shape[1]):
                ranks[row, column] = 0.0
            rows[count] = row
            count += 1
        row = requests[row].behind
    sort(ranks, rows, count)
    return count


@compiled_in_place
def _park_or_not(core: Core, row: int) -> None:
    core.requests[row].facts ^= PARKED
    place_anew(core, row)
