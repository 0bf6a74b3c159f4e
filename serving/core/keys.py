"""Where does a request stand in the policy's order? The key functions of all policies, compiled."""

import math

from serving.core.jit import compiled_in_place
from serving.core.state import Core
from serving.policies import (
    POLICIES,
    density,
    edf,
    laxity,
    mlfq,
    prefix,
    priority,
    sjf,
    slide,
    srpt,
    tiered,
)

# A policy's number in the core is its place in the registry.
NUMBERS = {name: number for number, name in enumerate(POLICIES)}
_PRIORITY, _SJF, _EDF = NUMBERS["priority"], NUMBERS["sjf"], NUMBERS["edf"]
_LAXITY, _DENSITY, _SRPT = NUMBERS["laxity"], NUMBERS["density"], NUMBERS["srpt"]
_MLFQ, _FAIR, _PREFIX = NUMBERS["mlfq"], NUMBERS["fair"], NUMBERS["prefix"]
_TIERED, _SLIDE = NUMBERS["tiered"], NUMBERS["slide"]
_priority, _sjf, _edf, _laxity, _density, _srpt, _mlfq, _prefix, _tiered, _slide = (
    compiled_in_place(policy.key)
    for policy in (priority, sjf, edf, laxity, density, srpt, mlfq, prefix, tiered, slide)
)


@compiled_in_place
def key_of(core: Core, row: int, prompt_tokens: int) -> tuple[float, float]:
    """The key under the policy in force, with so many prompt tokens left to compute.

    A key that is no number is noted in `engine.broken`, and replaced: it would have no order.
    """
    one, engine = core.requests[row], core.engine[0]
    policy, rate = engine.policy, engine.prefill_s_per_token
    arrival_s, deadline_s, prefill_s = one.arrival_s, one.deadline_s, prompt_tokens * rate
    first, second = 0.0, 0.0
    if policy in (_EDF, _FAIR):
        first = _edf(deadline_s, prefill_s, one.weight, engine.kappa)
    elif policy == _SLIDE:
        first = _slide(arrival_s, deadline_s, prefill_s, one.weight, engine.load, engine.kappa)
    elif policy == _SJF:
        first = _sjf(arrival_s, prefill_s, one.weight, engine.kappa)
    elif policy == _LAXITY:
        first = _laxity(deadline_s, prefill_s)
    elif policy == _DENSITY:
        first = _density(
            prompt_tokens, one.predicted_output_tokens, one.weight, prefill_s,
            engine.decode_s_per_token,
        )  # fmt: skip
    elif policy == _SRPT:
        first = _srpt(
            one.predicted_output_tokens, one.q90_output_tokens, one.weight, prefill_s,
            engine.decode_s_per_token, engine.rho,
        )  # fmt: skip
    elif policy == _PREFIX:
        first = _prefix(arrival_s, one.cached_tokens, rate, engine.kappa)
    elif policy == _PRIORITY:
        first, second = _priority(one.priority, arrival_s)
    elif policy == _MLFQ:
        first, second = _mlfq(
            arrival_s, prefill_s, one.attained_tokens, engine.decode_s_per_token,
            engine.quantum_s, engine.levels,
        )  # fmt: skip
    elif policy == _TIERED:
        first, second = _tiered(one.ttft_s, one.tpot_s, one.e2e_s, deadline_s)
    if math.isnan(first) or math.isnan(second):
        engine.broken = 1
        return 0.0, 0.0
    return first, second
