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

    def hopeless_s(self, view: RequestView, rate: float) -> float:
        """When the prefill must have begun to meet the deadline: now + c > d from then on."""
        return view.deadline_s - view.prompt_tokens * rate

    def now(
        self, view: RequestView, resumed: bool, conforms_s: float, rate: float, now_s: float
    ) -> tuple[int, float, int]:
        """A request's standing, and when it changes by itself, to which (itself: never).

        Args:
            view: the request.
            resumed: it had begun to answer when it was preempted.
            conforms_s: when its tenant's bucket covers it.
            rate: predicted seconds per prompt token.
            now_s: seconds on the engine's clock.
        """
        starved_s = view.arrival_s + self.max_wait_s if self.ceiling else math.inf
        if (resumed and self.ceiling) or starved_s <= now_s:
            return FIRST, math.inf, FIRST
        hopeless_s = self.hopeless_s(view, rate) if self.demotes else math.inf
        if hopeless_s <= now_s:
            return DEMOTED, starved_s, FIRST
        if conforms_s > now_s:
            standing, when_s, then = OVER_SHARE, conforms_s, NORMAL
        else:
            standing, when_s, then = NORMAL, math.inf, NORMAL
        if hopeless_s < when_s:
            when_s, then = hopeless_s, DEMOTED
        if starved_s <= when_s and self.ceiling:
            when_s, then = starved_s, FIRST
        return standing, when_s, then
