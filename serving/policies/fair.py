"""`fair`: the tenant that has had least goes first; inside a tenant, deadline order."""

from serving.policies.base import PolicyCard
from serving.policies.edf import Edf


class Fair(Edf):
    """Key inside the tenant: that of `edf`, d + kappa*c/w, its hopeless requests last.

    Between tenants no key decides but the queue's counters (`shares`): work in tokens,
    divided by the tenant's weight (its classes' do not count there); the backlogged tenant
    with the least is served, and
    one that was idle starts where the others are, so that it banks nothing.

    Source: Virtual Token Counter, VTC (arXiv 2401.00588), weighted; inner order after
    QoServe (arXiv 2503.22562).

    Regime: tenants that must not pay for one that floods. It gives shares, not goodput:
    below saturation and without a flood, `edf` meets the same deadlines.
    """

    name = "fair"
    shares = True
    card = PolicyCard(
        helps="one tenant floods: the others keep their weighted share of tokens",
        hurts="tight deadlines of a tenant that needs more than its share for a while",
    )
