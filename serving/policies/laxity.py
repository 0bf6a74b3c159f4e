"""`laxity`: least laxity first, counting the prefill still to be done before the deadline."""

from serving.policies.base import Policy, PolicyCard


def key(deadline_s: float, prefill_s: float) -> float:
    """Latest start time."""
    return deadline_s - prefill_s


class Laxity(Policy):
    """Key: d - c, the latest moment at which prefill may start.

    Source: least laxity first (Dertouzos and Mok 1989): laxity is d - c - now, and
    `now` is the same for all that wait, so the order does not change with time. Weights do
    nothing: it is no trade of one request for another.

    Regime: deadlines and prompt lengths that differ much, below saturation. In overload
    it starts long prompts first, where `sjf` and `slide` do the opposite.
    """

    name = "laxity"
    demotes = True
    card = PolicyCard(
        helps="deadlines and prompt lengths that differ much, below saturation",
        hurts="overload: it starts long prompts first and starves short ones",
    )
    key = staticmethod(key)
