"""May an agent choose the order in which requests are served? Called over the long horizon."""

from typing import Any, Self

from pydantic import Field, model_validator

from serving.policies import POLICIES, complete_params
from tools.tool import Tool, ToolArgs


class SwitchPolicyArgs(ToolArgs):
    """The policy to put in force."""

    policy: str = Field(description="Name of a registered policy: " + ", ".join(sorted(POLICIES)))
    params: dict[str, float] = Field(
        default_factory=dict, description="Parameters within the policy's bounds; empty is default."
    )

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        complete_params(self.policy, self.params)
        return self


def _change(args: SwitchPolicyArgs) -> dict[str, Any]:
    return {"policy": args.policy, "params": args.params}


TOOL = Tool(
    name="switch_policy",
    description="Put another scheduling policy in force. Waiting requests are reordered at once.",
    args=SwitchPolicyArgs,
    change=_change,
)
