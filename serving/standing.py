"""Does a request stand before, in, or behind the policy's order? Pure logic, no vLLM.

Called by the waiting queue and for prefills that have begun. Four standings, served
in this order; inside the first by arrival, inside the others by the policy's key.
"""

from serving.policies.base import RequestView

# FIRST: has waited beyond the ceiling, or has begun to answer and was preempted.
# OVER_SHARE: sent beyond its tenant's share. DEMOTED: can no longer meet its SLO.
FIRST, NORMAL, OVER_SHARE, DEMOTED = -1, 0, 1, 2


# Facts about a request, whatever the policy: it has waited beyond the ceiling, or was
# preempted while it answered; its prefill can no longer be done before its deadline; its
# tenant's bucket does not cover it yet.
STARVED, HOPELESS, UNCOVERED = 1, 2, 4


def standings(*, ceiling: bool, demotes: bool, buckets: bool) -> tuple[int, ...]:
    """The standing of a request, by the sum of its facts.

    Args:
        ceiling: some order in force could starve a request, so the starved go first.
        demotes: hopeless requests stand behind all others.
        buckets: what a tenant sends beyond its share stands behind the others' requests.
    """

    def standing(facts: int) -> int:
        if facts & STARVED and ceiling:
            return FIRST
        if facts & HOPELESS and demotes:
            return DEMOTED
        return OVER_SHARE if facts & UNCOVERED and buckets else NORMAL

    return tuple(standing(facts) for facts in range(8))


def hopeless_s(view: RequestView, rate: float) -> float:
    """When its prefill (`rate` seconds per token) must have begun to meet the deadline."""
    return view.deadline_s - view.prompt_tokens * rate
