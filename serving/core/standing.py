"""Does a request stand before, in, or behind the policy's order?

Five standings, served in this order; inside the first by arrival, inside the others by the
policy's key. Weights act in the key and in whom triage gives up; who is hopeless is so at any
weight.
"""

import math

from serving.core.jit import compiled_in_place
from serving.core.state import Core

# FIRST: has waited beyond the ceiling, or has begun to answer and was preempted.
# GIVEN_UP: could meet its SLO only if others missed theirs. OVER_SHARE: sent beyond its
# tenant's share. DEMOTED: can no longer meet its SLO.
FIRST, NORMAL, OVER_SHARE, GIVEN_UP, DEMOTED = -1, 0, 1, 2, 3

# Facts about a request, whatever the policy: it has waited beyond the ceiling, or was
# preempted while it answered; its prefill can no longer be done before its deadline; its
# tenant's bucket does not cover it yet; triage has parked it.
STARVED, HOPELESS, UNCOVERED, PARKED = 1, 2, 4, 8


@compiled_in_place
def standing_of(core: Core, facts: int) -> int:
    """The standing of a request with these facts under the decision in force."""
    engine = core.engine[0]
    acts = engine.demotes or engine.buckets or engine.triage
    # The ceiling: unless nothing else changes the order, starved requests go first.
    if facts & STARVED and (acts or not engine.starvation_free):
        return FIRST
    if facts & HOPELESS and engine.demotes:
        return DEMOTED
    if facts & PARKED and engine.triage:
        return GIVEN_UP
    if facts & UNCOVERED and engine.buckets:
        return OVER_SHARE
    return NORMAL


@compiled_in_place
def hopeless_s(deadline_s: float, prompt_tokens: int, rate: float) -> float:
    """When prefill (`rate` seconds per token) must have begun to meet the deadline."""
    return deadline_s - prompt_tokens * rate


@compiled_in_place
def see(core: Core, row: int) -> float:
    """Note what holds of a waiting request now; returns when that changes, or infinity."""
    one, engine = core.requests[row], core.engine[0]
    now_s = engine.now_s
    starved_s = one.arrival_s + engine.max_wait_s
    late_s = hopeless_s(one.deadline_s, one.prompt_tokens, engine.prefill_s_per_token)
    facts = one.facts & PARKED
    if one.resumed or starved_s <= now_s:
        facts |= STARVED
    if late_s <= now_s:
        facts |= HOPELESS
    if one.conforms_s > now_s:
        facts |= UNCOVERED
    one.facts = facts
    changes_s = math.inf
    for when_s in (starved_s, late_s, one.conforms_s):
        if now_s < when_s < changes_s:
            changes_s = when_s
    return changes_s
