"""Is the KV cache too full? Rule agent for preemption: which requests it hits, how to avoid it.

A preempted request is computed anew. To choose the victim costs nothing. To keep blocks free costs
throughput, because free blocks serve no request. So victims come first, and a reserve comes last.
"""

from hmas_agents.agents.calls import RuleCall, call_for, stepped
from hmas_agents.states import ShortState

RECOMPUTE_HIGH = 0.25
RECOMPUTE_LOW = 0.10
RESERVE_OFF = 0.02


def propose(state: ShortState) -> list[RuleCall]:
    """Victims, then the reserve; see the two functions."""
    return victim_choice(state) + kv_reserve(state)


def victim_choice(state: ShortState) -> list[RuleCall]:
    """Choose victims by least loss from the first preemption on; not after a clean minute.

    The order of loss is in `serving.core.victims`. Simulated on a tight cache (Azure
    conversation, `edf` and `slide` with slack, 0.7 to 2 times capacity) it changed
    attainment by 0 to +2.3 points, and never for the worse.
    """
    preempts, chosen = state.preemptions_per_s > 0, state.limits.choose_victims
    if preempts == chosen:
        return []
    reason = "requests are preempted: by least loss" if preempts else "no more preemptions"
    return [call_for("choose_victims", preempts, state, reason)]


def kv_reserve(state: ShortState) -> list[RuleCall]:
    """Set eta <- min(eta + 0.05, 0.2) while recomputation eats prefill, halve it when it ends.

    With r the recomputed share of prefill work:

    - r > 0.25 and victims are chosen already: up;
    - r < 0.10: half of it, and none below 0.02.

    The hook admits only while the predicted peak of KV blocks leaves eta free (after the
    Past-Future scheduler, arXiv 2507.10150). Recomputing pays for a fuller batch for long:
    simulated as above, a reserve of 0.05 at r = 0.15 cost 1 to 6 points of attainment.
    """
    reserve, share = state.limits.kv_reserve, state.recompute_share
    if share > RECOMPUTE_HIGH and state.preemptions_per_s > 0 and state.limits.choose_victims:
        wanted = stepped("kv_reserve", 1, state)
        reason = f"{share:.0%} of prefill is recomputation: admit less"
    elif share < RECOMPUTE_LOW:
        wanted = round(reserve / 2, 4) if reserve / 2 >= RESERVE_OFF else 0.0
        reason = f"{share:.0%} of prefill is recomputation: reserve less"
    else:
        return []
    if wanted == reserve:
        return []
    return [call_for("kv_reserve", wanted, state, reason)]
