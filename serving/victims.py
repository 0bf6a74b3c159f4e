"""Which request does vLLM preempt when KV blocks run out? The last one of the running list.

Orders the running list before a step that may run out of blocks, so that the requests that lose
least come last. Pure logic; called by step control.
"""

from dataclasses import dataclass

DWELL_S = 5.0  # after a preemption, a resumed request is left alone for so long
SPARED_TOKENS = 8.0  # an answer this close to its predicted end is finished first


@dataclass(frozen=True, slots=True)
class Victim:
    """A running request, as a possible victim.

    Attributes:
        lost: hopeless, or without any SLO.
        since_preempted_s: seconds since it was last preempted; infinite if never.
        remaining: predicted tokens still to come.
        blocks: KV blocks that preempting it would free.
        computed: tokens that would have to be computed again.
    """

    lost: bool
    since_preempted_s: float
    remaining: float
    blocks: float
    computed: int

    def loss(self) -> tuple[bool, bool, bool, float, int]:
        """Sort key: the larger, the sooner it is preempted.

        No request twice within `DWELL_S`; hopeless and best-effort requests first; then requests
        that are not nearly finished; then by blocks freed per token to recompute; among equals
        the request with the fewest tokens to recompute.
        """
        return (
            self.since_preempted_s >= DWELL_S,
            self.lost,
            self.remaining > SPARED_TOKENS,
            self.blocks / max(1, self.computed),
            -self.computed,
        )
