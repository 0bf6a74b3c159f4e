"""Which policies are there? The registry, and checks of a policy's parameters.

Called by the queue, the tools, the guardrails and the prompts' policy cards.
"""

from collections.abc import Mapping

from serving.contracts.near_names import choices
from serving.policies.base import Policy, PolicyCard, PolicyContext, RequestView
from serving.policies.density import Density
from serving.policies.edf import Edf
from serving.policies.fair import Fair
from serving.policies.fcfs import Fcfs
from serving.policies.laxity import Laxity
from serving.policies.mlfq import Mlfq
from serving.policies.prefix import Prefix
from serving.policies.priority import Priority
from serving.policies.sjf import Sjf
from serving.policies.slide import Slide
from serving.policies.srpt import Srpt
from serving.policies.tiered import Tiered

__all__ = ["POLICIES", "Policy", "PolicyCard", "PolicyContext", "RequestView", "complete_params",
    "format_policy", "parse_policy"]

# Simple orders first, as they are listed to readers and to the policy agent.
_ALL: tuple[Policy, ...] = (
    Fcfs(), Priority(), Sjf(), Edf(), Laxity(), Density(), Srpt(), Mlfq(), Fair(), Prefix(),
    Tiered(), Slide(),
)  # fmt: skip
POLICIES: dict[str, Policy] = {policy.name: policy for policy in _ALL}


def complete_params(name: str, params: Mapping[str, float]) -> dict[str, float]:
    """Parameters of policy `name`: the defaults, overridden by `params`.

    Raises:
        ValueError: unknown policy, unknown parameter, or a value outside its bounds.
    """
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} does not exist; {choices(name, POLICIES)}")
    policy = POLICIES[name]
    complete = dict(policy.default_params)
    for key, value in params.items():
        if key not in policy.param_bounds:
            known = choices(key, policy.param_bounds, "it has")
            raise ValueError(f"policy {name!r} has no parameter {key!r}; {known}")
        low, high = policy.param_bounds[key]
        if not low <= value <= high:  # so are NaN and numbers too large for a float
            raise ValueError(f"{name}.{key} = {value} is outside {low}..{high}")
        complete[key] = float(value)
    return complete


def parse_policy(text: str) -> tuple[str, dict[str, float]]:
    """Name and parameters of `edf:kappa=10`, `mlfq:levels=4,quantum_s=0.1`, or just `edf`.

    Raises:
        ValueError: unknown policy or parameter, a value that is no number or outside its
            bounds, or a parameter named twice.
    """
    name, colon, rest = text.partition(":")
    params: dict[str, float] = {}
    for part in rest.split(",") if colon else ():
        key, _, value = part.partition("=")
        if key in params:
            raise ValueError(f"{text!r} names {key!r} twice")
        try:
            params[key] = float(value)
        except ValueError:
            raise ValueError(f"{text!r}: {part!r} is not of the form parameter=number") from None
    complete_params(name, params)
    return name, params


def format_policy(name: str, params: Mapping[str, float]) -> str:
    """As `parse_policy` reads it, defaults left out: `edf:kappa=10`, or `edf` for kappa 0.

    A name that is no policy (any more) is left as it is.
    """
    defaults = POLICIES[name].default_params if name in POLICIES else {}
    set_ = [f"{k}={v:g}" for k, v in sorted(params.items()) if v != defaults.get(k)]
    return f"{name}:{','.join(set_)}" if set_ else name
