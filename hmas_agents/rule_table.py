"""Which policy would a rule choose? The proposal that needs no model.

Called by the long horizon beside (and, on a fault, instead of) the policy agent.
"""

from hmas_agents.records import Proposal
from hmas_agents.states import LongState

CALM_LOAD = 0.9
OVERLOAD = 1.1


def choose(state: LongState) -> Proposal:
    """The first line that applies.

    1. Load unknown: stay; without a figure there is no reason to move.
    2. Load from 1.1 on: `density`. Not all can be served in time, and what gives most per
       second of engine time goes first.
    3. Load from 0.9 on: `slide`, deadline order that gives way as the queue grows.
    4. Below: `edf`, which is optimal while every deadline can be met.
    """
    if state.load is None:
        return Proposal("rules", state.policy, reason="load unknown: stay")
    if state.load >= OVERLOAD:
        return Proposal("rules", "density", reason=f"load {state.load:.2f}: most per second first")
    if state.load >= CALM_LOAD:
        return Proposal("rules", "slide", reason=f"load {state.load:.2f}: follow the overload")
    return Proposal("rules", "edf", reason=f"load {state.load:.2f}: deadlines can be met")
