"""Which contenders are there? An arm is a name and how the engine is steered.

`vllm-fcfs` is stock vLLM; `fixed-NAME` is our scheduler with one policy and stock
limits for the whole run; `hmas` is the control loop, acting. The simulated and the
live runner give an arm its meaning; suites name arms, results carry the names.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from serving.contracts import Decision, Limits
from serving.policies import POLICIES

if TYPE_CHECKING:
    from hmas_agents.config import Config

FIXED_CONTROLLER = "fixed"


@dataclass(frozen=True, slots=True)
class Arm:
    """One contender; `policy` is set for the kind `fixed` only."""

    name: str
    kind: Literal["stock", "fixed", "hmas"]
    policy: str = ""


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What the arm `hmas` needs beside its defaults.

    Attributes:
        config_path: a controller configuration file; None means the defaults.
        model_url: endpoint of the policy agent's model; None leaves the choice to rules.
        model_name: model to ask there; empty means the first one listed.
        ledger_path: where decisions are recorded; None means nowhere.
    """

    config_path: Path | None = None
    model_url: str | None = None
    model_name: str = ""
    ledger_path: Path | None = None


def parse_arm(name: str) -> Arm:
    """The arm of a name.

    Raises:
        ValueError: there is none; lists those there are.
    """
    if name == "vllm-fcfs":
        return Arm(name, "stock")
    if name == "hmas":
        return Arm(name, "hmas")
    policy = name.removeprefix("fixed-")
    if policy != name and policy in POLICIES:
        return Arm(name, "fixed", policy)
    known = ["vllm-fcfs", *(f"fixed-{policy}" for policy in POLICIES), "hmas"]
    raise ValueError(f"unknown arm {name!r}; known: {', '.join(known)}")


def fixed_decision(policy: str, limits: Limits, epoch: int, ttl_s: float) -> Decision:
    """The one decision of a `fixed-NAME` arm."""
    return Decision(
        controller_id=FIXED_CONTROLLER,
        epoch=epoch,
        ttl_s=ttl_s,
        policy=policy,
        params={},
        limits=limits,
        reason="fixed for the whole run",
    )


def controller_config(options: ControllerOptions, overrides: dict[str, object]) -> "Config":
    """The configuration of the arm `hmas`: acting, with the model only if one is given.

    Raises:
        hmas_agents.config.ConfigError: names file, line and key.
    """
    from hmas_agents.config import load_config

    return load_config(
        options.config_path,
        {
            "control.mode": "act",
            "model.enabled": options.model_url is not None,
            "model.base_url": options.model_url,
            "model.name": options.model_name or None,
            **overrides,
        },
    )
