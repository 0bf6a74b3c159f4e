"""`priority`: vLLM's request priority, then arrival (vLLM's `--scheduling-policy priority`)."""

from serving.policies.base import Policy, PolicyCard


def key(priority: float, arrival_s: float) -> tuple[float, float]:
    """(priority, arrival)."""
    return priority, arrival_s


class Priority(Policy):
    """Key: (priority, a), the lower number first. Weights do nothing: callers decide.

    Source: vLLM's priority queue, `--scheduling-policy priority`.

    Regime: callers whose priorities mean something. Low ones wait up to the ceiling
    while higher ones keep coming.
    """

    name = "priority"
    card = PolicyCard(
        helps="callers set priorities that mean something",
        hurts="priorities unset (it is then first come, first served) or inflated",
    )
    key = staticmethod(key)


class StockPriority(Priority):
    """The same without our guarantees, as vLLM's own queue has it: no ceiling, no resuming first.

    In force under `--scheduling-policy priority` while no controller holds the lease.
    """

    starvation_free = True  # taken for granted: vLLM bounds no waiting here
    is_stock = True


STOCK_PRIORITY = StockPriority()
