"""Does a request stand before, in, or behind the policy's order? Pure logic, no vLLM.

Called by the waiting queue and for prefills that have begun. Four standings, served
in this order; inside the first by arrival, inside the others by the policy's key.
"""

import math
from dataclasses import dataclass

from serving.policies.base import RequestView

# FIRST: has waited beyond the ceiling, or has begun to answer and was preempted.
# OVER_SHARE: sent beyond its tenant's share. DEMOTED: can no longer meet its SLO.
FIRST, NORMAL, OVER_SHARE, DEMOTED = -1, 0, 1, 2


@dataclass(slots=True)
class StandingRules:
    """What decides on standings.

    Attributes:
        max_wait_s: a request that has waited longer outranks every policy.
        demotes: hopeless requests stand behind all others.
        ceiling: some order in force could starve a request, so the ceiling is on.
    """

    max_wait_s: float
    demotes: bool = False
    ceiling: bool = False

    def now(
        self, view: RequestView, resumed: bool, conforms_s: float, rate: float, now_s: float
    ) -> tuple[int, float]:
        """A request's standing, and when it is to be judged again (infinite: never).

        Args:
            view: the request.
            resumed: it had begun to answer when it was preempted.
            conforms_s: when its tenant's bucket covers it.
            rate: predicted seconds per prompt token.
            now_s: seconds on the engine's clock.
        """
        starved_s = view.arrival_s + self.max_wait_s if self.ceiling else math.inf
        if (resumed and self.ceiling) or starved_s <= now_s:
            return FIRST, math.inf
        # The prefill must have begun by then to meet the deadline.
        hopeless_s = view.deadline_s - view.prompt_tokens * rate if self.demotes else math.inf
        if hopeless_s <= now_s:
            return DEMOTED, starved_s
        changes_s = min(hopeless_s, starved_s)
        if conforms_s > now_s:
            return OVER_SHARE, min(changes_s, conforms_s)
        return NORMAL, changes_s
