"""Does a request stand before, in, or behind the policy's order? Pure logic, no vLLM.

Called by the waiting queue and for prefills that have begun. Four standings, served
in this order; inside the first by arrival, inside the others by the policy's key.
"""

from dataclasses import dataclass

from serving.policies.base import RequestView

# FIRST: has waited beyond the ceiling, or has begun to answer and was preempted.
# OVER_SHARE: sent beyond its tenant's share. DEMOTED: can no longer meet its SLO.
FIRST, NORMAL, OVER_SHARE, DEMOTED = -1, 0, 1, 2


@dataclass(slots=True)
class StandingRules:
    """What decides on standings, of facts that hold under every policy.

    Attributes:
        demotes: hopeless requests stand behind all others.
        ceiling: some order in force could starve a request, so the ceiling is on.
        buckets: what a tenant sends beyond its share stands behind the others' requests.
    """

    demotes: bool = False
    ceiling: bool = False
    buckets: bool = False

    def of(self, *, starved: bool, hopeless: bool, over_share: bool) -> int:
        """The standing of a request.

        Args:
            starved: it has waited beyond the ceiling, or was preempted while it answered.
            hopeless: its prefill can no longer be done before its deadline.
            over_share: its tenant's bucket does not cover it yet.
        """
        if starved and self.ceiling:
            return FIRST
        if hopeless and self.demotes:
            return DEMOTED
        return OVER_SHARE if over_share and self.buckets else NORMAL


def hopeless_s(view: RequestView, rate: float) -> float:
    """When its prefill (`rate` seconds per token) must have begun to meet the deadline."""
    return view.deadline_s - view.prompt_tokens * rate
