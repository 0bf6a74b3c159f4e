"""Which policies are there? The registry, and checks of a policy's parameters.

Called by the queue, the tools, the guardrails and the prompts' policy cards.
"""

import math
from collections.abc import Mapping

from serving.policies.base import Policy, PolicyCard, PolicyContext, RequestView
from serving.policies.edf import Edf
from serving.policies.fcfs import Fcfs
from serving.policies.laxity import Laxity
from serving.policies.priority import Priority
from serving.policies.sjf import Sjf
from serving.policies.slide import Slide

__all__ = ["POLICIES", "Policy", "PolicyCard", "PolicyContext", "RequestView", "complete_params"]

_ALL: tuple[Policy, ...] = (Fcfs(), Priority(), Sjf(), Edf(), Laxity(), Slide())
POLICIES: dict[str, Policy] = {policy.name: policy for policy in _ALL}


def complete_params(name: str, params: Mapping[str, float]) -> dict[str, float]:
    """Parameters of policy `name`: the defaults, overridden by `params`.

    Raises:
        ValueError: unknown policy, unknown parameter, or a value outside its bounds.
    """
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} does not exist; there are {', '.join(POLICIES)}")
    policy = POLICIES[name]
    complete = dict(policy.default_params)
    for key, value in params.items():
        if key not in policy.param_bounds:
            known = ", ".join(policy.param_bounds) or "none"
            raise ValueError(f"policy {name!r} has no parameter {key!r}; it has {known}")
        low, high = policy.param_bounds[key]
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{name}.{key} = {value} is outside {low}..{high}")
        complete[key] = float(value)
    return complete
