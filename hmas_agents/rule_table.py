"""Which policy would a rule choose? The proposal that needs no model.

Called by the long horizon beside (and, on a fault, instead of) the policy agent.
"""

from hmas_agents.records import Proposal
from hmas_agents.states import LongState

CALM_LOAD = 0.9
BURSTY = 6.0
MOST_MET = 0.9


def choose(state: LongState) -> Proposal:
    """The first line that applies.

    1. Load unknown: stay; without a figure there is no reason to move.
    2. Load below 0.9, arrivals not bursty, 90% or more met: `edf`, which is optimal
       while every deadline can be met.
    3. Otherwise `slide`: deadline order while the queue is short, short prompts first
       as it grows, so that a burst or overload does not spend the engine on requests
       that are about to miss.
    """
    if state.load is None:
        return Proposal("rules", state.policy, reason="load unknown: stay")
    dispersion = max(state.dispersion.values(), default=1.0)
    if state.load >= CALM_LOAD:
        return Proposal("rules", "slide", reason=f"load {state.load:.2f}: follow the overload")
    if dispersion >= BURSTY:
        return Proposal("rules", "slide", reason=f"bursts (dispersion {dispersion:.1f})")
    if state.attainment is not None and state.attainment < MOST_MET:
        return Proposal("rules", "slide", reason=f"calm but only {state.attainment:.0%} met")
    return Proposal("rules", "edf", reason=f"load {state.load:.2f}: deadlines can be met")
