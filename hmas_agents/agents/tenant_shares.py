"""Does one tenant's flood make the others miss? Rule agent for the tenant buckets."""

import math
from collections.abc import Mapping

from hmas_agents.agents.calls import RuleCall, call_for
from hmas_agents.states import ShortState

FLOOD = 3.0  # times what any other tenant sends, each by its weight
OVER = 1.5
FEWEST_REQUESTS = 20  # in the window; of fewer, shares say little
ATTAINED_LOW = 0.90
HOPELESS_HIGH = 0.02
IN_VAIN_HIGH = 0.10


def propose(state: ShortState) -> list[RuleCall]:
    """Serve what a flooding tenant sends beyond its share last, until its flood is over.

    With f how many times as much as any other tenant the largest one sends in the short
    window, each by its weight in the contract (the smaller of the ratios by prompt tokens and by
    requests: a few long prompts are no flood), A the mean attainment of the other tenants in it,
    n the requests that wait in vain, v = n / (requests that wait or were served in time lately),
    and h = n / (requests that wait):

    - on: f > 3, at least 20 requests came, h > 0.02, A < 0.90 or v > 0.1, and no triage;
    - off: f < 1.5, or nothing waits, or triage is in force.

    Triage protects the others already: a flood's requests come late, and what comes too late is
    served last, whoever sends it. With buckets on top of it all tenants together met 10 to 13
    points less (simulated, one of four tenants sends 3 to 12 times as much, 1.2 times capacity,
    start rules, development half): the flooding one 15 to 25, while of the others only the one
    of batch work gained in each case.

    The state does not say whose requests wait in vain: such requests are served last, and A shows
    them only after the flood. A also remembers half a minute and more, so it counts only while the
    queue is late now (h). While buckets are on, the other tenants meet their targets, so neither A
    nor v says when to end it.
    Between the two nothing moves (hysteresis). With one tenant there is none to protect.
    The engine says what a tenant's share is, its configured weight included: buckets are a
    generic cell rate algorithm on engine seconds (ITU-T I.371; `serving.core.tenants`). They trade
    goodput for isolation: up to 9 points where there is no flood (simulated, at commit 5051864),
    so they are not left on. Simulated flood (Azure
    conversation, one of four tenants sends 12 times as much, 1.4 times capacity), this
    agent against none: the others from 0.64 to 0.95 under `edf` and from 0.79 to 0.96
    under `slide`, all together from 0.65 to 0.67 and from 0.79 to 0.77.
    """
    buckets = state.limits.tenant_buckets
    if state.limits.triage:
        off = call_for("tenant_buckets", False, state, "triage protects the others")
        return [off] if buckets else []
    # A tenant of weight 3 may send three times as much: its share is three times as large.
    tokens = _by_weight(state.offered_by_tenant, state)
    requests = _by_weight(state.requests_by_tenant, state)
    flooder = max(tokens, key=lambda name: tokens[name], default="")
    excess = min(_excess(tokens, flooder), _excess(requests, flooder))
    if buckets:
        if state.waiting == 0 or excess < OVER:
            return [call_for("tenant_buckets", False, state, "the flood is over")]
        return []
    attained = [
        state.attainment_by_tenant[name]
        for name in tokens
        if name != flooder and name in state.attainment_by_tenant
    ]
    misses = bool(attained) and sum(attained) / len(attained) < ATTAINED_LOW
    late = state.waiting > 0 and state.hopeless_share > HOPELESS_HIGH
    if (
        FLOOD < excess < math.inf
        and sum(state.requests_by_tenant.values()) >= FEWEST_REQUESTS
        and late
        and (misses or state.in_vain_share > IN_VAIN_HIGH)
    ):
        reason = f"one tenant sends {excess:.3g} times as much, {state.in_vain_share:.0%} in vain"
        return [call_for("tenant_buckets", True, state, reason)]
    return []


def _by_weight(sent: Mapping[str, float], state: ShortState) -> dict[str, float]:
    """What each tenant sent over what it weighs."""
    return {name: amount / state.weight_by_tenant.get(name, 1.0) for name, amount in sent.items()}


def _excess(sent: Mapping[str, float], largest: str) -> float:
    """What one tenant sent over the most that another one sent; infinite without another."""
    others = max((amount for name, amount in sent.items() if name != largest), default=0.0)
    return sent.get(largest, 0.0) / others if others > 0 else math.inf
