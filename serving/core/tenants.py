"""Which tenant is owed service? The work, floors and buckets of lanes.

A lane counts its tenant's work: prompt tokens when a request is admitted, and `DECODE_WORK` per
step of each of its decodes. Shares are by the tenant's weight alone, whatever its classes weigh.
"""

import math

from serving.core.jit import compiled_in_place
from serving.core.state import Core

# A decode step of one request weighs as much as two prompt tokens (VTC, arXiv 2401.00588).
DECODE_WORK = 2.0


@compiled_in_place
def begin_backlog(core: Core, lane: int) -> None:
    """A lane without waiting requests gets one: what it did not use is not banked."""
    tenants, engine, least = core.tenants, core.engine[0], math.inf
    for i in range(engine.lanes):
        if tenants[i].waiting and tenants[i].work < least:
            least = tenants[i].work
    if least == math.inf:
        least = engine.virtual
    tenants[lane].work = max(tenants[lane].work, least)
    tenants[lane].owed = 0.0


@compiled_in_place
def level(core: Core) -> None:
    """Sharing begins: work done under another policy is not paid back."""
    for i in range(core.engine[0].lanes):
        core.tenants[i].work = 0.0
    core.engine[0].virtual = 0.0


@compiled_in_place
def admit(core: Core, lane: int, prompt_tokens: int) -> float:
    """A request of the lane goes to the engine; returns by how much it lowered `owed`."""
    tenants, engine = core.tenants, core.engine[0]
    own = tenants[lane]
    engine.virtual = max(engine.virtual, own.work)
    before = own.owed
    own.work += prompt_tokens / own.weight
    floored = False
    for i in range(engine.lanes):
        one = tenants[i]
        if one.floor > 0.0:
            floored = True
            if one.waiting:
                one.owed += one.floor * prompt_tokens
    if floored:
        # Served beyond its floor is not held against it: the floor is a least, at any time.
        own.owed = max(0.0, own.owed - prompt_tokens)
    return float(before - own.owed)


@compiled_in_place
def take_back(core: Core, lane: int, prompt_tokens: int, lowered: float) -> None:
    """A request came back that could not start; `lowered` is what `admit` returned."""
    tenants = core.tenants
    tenants[lane].work -= prompt_tokens / tenants[lane].weight
    for i in range(core.engine[0].lanes):
        one = tenants[i]
        if i != lane and one.floor > 0.0 and one.waiting:  # `lowered` holds its own share already
            one.owed = max(0.0, one.owed - one.floor * prompt_tokens)
    tenants[lane].owed += lowered


@compiled_in_place
def count_decodes(core: Core) -> None:
    """A step is over: every decode has done its work, except `silent` ones of each lane."""
    tenants, engine, total = core.tenants, core.engine[0], 0.0
    for i in range(engine.lanes):
        tokens = DECODE_WORK * (tenants[i].decoding - tenants[i].silent)
        total += tokens
        tenants[i].work += tokens / tenants[i].weight
    for i in range(engine.lanes):
        one = tenants[i]
        if one.floor > 0.0 and one.waiting:
            owed = one.owed + one.floor * total - DECODE_WORK * (one.decoding - one.silent)
            one.owed = min(max(0.0, owed), engine.most_owed)


@compiled_in_place
def overdraw(core: Core, lane: int, arrival_s: float, work_s: float) -> float:
    """A request of `work_s` engine seconds arrives: when the tenant's bucket covers it.

    A generic cell rate algorithm (ITU-T I.371) on engine seconds: the tenant may be
    `bucket_s` seconds of its share ahead; its share is by weight among tenants with
    requests inside, so that what idle tenants leave may be borrowed.
    """
    tenants, engine, weights = core.tenants, core.engine[0], 0.0
    for i in range(engine.lanes):
        if tenants[i].inside:
            weights += tenants[i].weight
    own = tenants[lane]
    share = own.weight / max(weights, own.weight)
    own.ahead_s = max(own.ahead_s, arrival_s) + work_s / share
    return float(own.ahead_s - engine.bucket_s)
