"""Does a request stand before, in, or behind the policy's order? Pure logic, no vLLM.

Called by the waiting queue and for partial prefills. Five standings, served
in this order; inside the first by arrival, inside the others by the policy's key.
"""

import math
from dataclasses import dataclass
from typing import Any

from serving.lanes import Lane
from serving.policies.base import RequestView

# FIRST: has waited beyond the ceiling, or has begun to answer and was preempted.
# GIVEN_UP: could meet its SLO only if others missed theirs. OVER_SHARE: sent beyond its
# tenant's share. DEMOTED: can no longer meet its SLO.
FIRST, NORMAL, OVER_SHARE, GIVEN_UP, DEMOTED = -1, 0, 1, 2, 3


# Facts about a request, whatever the policy: it has waited beyond the ceiling, or was
# preempted while it answered; its prefill can no longer be done before its deadline; its
# tenant's bucket does not cover it yet; triage has parked it.
STARVED, HOPELESS, UNCOVERED, PARKED = 1, 2, 4, 8


@dataclass(slots=True, eq=False)
class Entry:
    """A waiting request and its place."""

    request: Any  # vLLM's
    view: RequestView
    lane: Lane
    order: int
    resumed: bool  # it had begun to answer when it was preempted
    standing: int = NORMAL
    conforms_s: float = -math.inf  # when its tenant's bucket covers it
    item: int = 0  # number of its one valid heap item; 0 when it has left
    event: int = 0  # number of its one valid event
    facts: int = 0  # a sum of STARVED, HOPELESS, UNCOVERED, PARKED
    # What taking it has changed, should it come back unstarted in the same step:
    charged: int = 0  # prompt tokens
    lowered: float = 0.0  # how much `Lane.owed` fell
    floor: bool = False
    ceiling: bool = False


def standings(
    *,
    starvation_free: bool = True,
    demotes: bool = False,
    buckets: bool = False,
    triage: bool = False,
) -> tuple[int, ...]:
    """The standing of a request, by the sum of its facts.

    Args:
        starvation_free: the policy's key starves no request. Unless nothing else changes the
            order, starved requests go first.
        demotes: hopeless requests stand behind all others.
        buckets: what a tenant sends beyond its share stands behind the others' requests.
        triage: parked requests stand behind all that can meet their deadlines.
    """
    ceiling = not starvation_free or demotes or buckets or triage

    def standing(facts: int) -> int:
        if facts & STARVED and ceiling:
            return FIRST
        if facts & HOPELESS and demotes:
            return DEMOTED
        if facts & PARKED and triage:
            return GIVEN_UP
        return OVER_SHARE if facts & UNCOVERED and buckets else NORMAL

    return tuple(standing(facts) for facts in range(16))


def hopeless_s(view: RequestView, rate: float) -> float:
    """When its prefill (`rate` seconds per token) must have begun to meet the deadline."""
    return view.deadline_s - view.prompt_tokens * rate
