"""`fcfs`: first come, first served, exactly as stock vLLM (its deque order)."""

from serving.policies.base import Policy, PolicyCard


def key() -> float:
    """No preference."""
    return 0.0


class Fcfs(Policy):
    """Key: none, so the queue's own order decides: new requests behind, preempted in front.

    Weights do nothing.

    Source: vLLM (arXiv 2309.06180), whose waiting queue it is request for request.

    Regime: calm load and one class of traffic, where any other order gains nothing. In
    overload every request waits behind ones that have already missed.
    """

    name = "fcfs"
    starvation_free = True
    is_stock = True
    card = PolicyCard(
        helps="calm load, one class of traffic; the reference order",
        hurts="overload: every request waits behind ones that have already missed",
    )
    key = staticmethod(key)
