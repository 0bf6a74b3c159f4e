"""A hooked scheduler whose policy a test can break, for the fault tests."""

import math

from serving.contracts import Ack, Decision
from serving.scheduler import HMASScheduler

BREAK = "break it"  # as the reason of a decision


class SchedulerWithBrokenPolicy(HMASScheduler):
    """The real hook. After a decision with the reason `BREAK`, a parameter is no number."""

    def hmas_apply(self, decision: Decision) -> Ack:
        """Put a decision in force, and spoil it if it asks for that."""
        ack = super().hmas_apply(decision)
        if decision.reason == BREAK:
            self.queue.core.engine["kappa"] = math.nan
        return ack
