"""Which policy would a rule choose? The proposal that needs no model.

Called by the long horizon beside (and, on a fault, instead of) the policy agent.
"""

from hmas_agents.records import Proposal
from hmas_agents.states import LongState

OVERLOAD = 1.2


def choose(state: LongState) -> Proposal:
    """The first line that applies: deadline order, which leans to short prompts as load rises.

    1. Load unknown: stay; without a figure there is no reason to move.
    2. Load from 1.2 on: `edf` with kappa 10. Not all can be served in time, and a long
       prompt takes the place of several short ones.
    3. Below: kappa 3. While every deadline can be met plain `edf` is optimal; but load is an
       average, and bursts and prompts longer than their deadline come at any load.

    Chosen by hand from simulated steady traffic, two seeds at five loads: kappa 0 gained 0.2
    points over 3 at best (conversation at 0.7 times capacity) and lost 3 (code, same load);
    above capacity 10 was within a point of the best on both.
    """
    if state.load is None:
        return Proposal("rules", state.policy, dict(state.params), reason="load unknown: stay")
    if state.load >= OVERLOAD:
        kappa, why = 10.0, "long prompts yield"
    else:
        kappa, why = 3.0, "long prompts yield a little"
    return Proposal("rules", "edf", {"kappa": kappa}, reason=f"load {state.load:.2f}: {why}")
