"""Which policy would a rule choose? The proposal that needs no model.

Called by the long horizon beside (and, on a fault, instead of) the policy agent.
"""

from hmas_agents.records import Proposal
from hmas_agents.states import LongState

CALM_LOAD = 0.9
OVERLOAD = 1.2


def choose(state: LongState) -> Proposal:
    """The first line that applies: deadline order, which leans to short prompts as load rises.

    1. Load unknown: stay; without a figure there is no reason to move.
    2. Load from 1.2 on: `edf` with kappa 10. Not all can be served in time, and a long
       prompt takes the place of several short ones.
    3. Load from 0.9 on: kappa 3.
    4. Below: plain `edf`, which is optimal while every deadline can be met.

    Chosen by hand from simulated steady traffic; `hmas eval run evals/suites/steady.toml` has the
    values of kappa side by side.
    """
    if state.load is None:
        return Proposal("rules", state.policy, dict(state.params), reason="load unknown: stay")
    if state.load >= OVERLOAD:
        kappa, why = 10.0, "long prompts yield"
    elif state.load >= CALM_LOAD:
        kappa, why = 3.0, "long prompts yield a little"
    else:
        kappa, why = 0.0, "deadlines can be met"
    return Proposal("rules", "edf", {"kappa": kappa}, reason=f"load {state.load:.2f}: {why}")
