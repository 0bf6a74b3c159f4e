"""May an agent choose the order in which requests are served? Called over the long horizon."""

from typing import Annotated

from pydantic import Field

from serving.policies import POLICIES, complete_params
from tools.tool import Change, tool


@tool
def switch_policy(
    policy: Annotated[
        str, Field(description="Name of a registered policy: " + ", ".join(sorted(POLICIES)))
    ],
    params: Annotated[
        dict[str, float],
        Field(
            default_factory=dict,
            description="Parameters within the policy's bounds; empty is default.",
        ),
    ],
    limits: Annotated[
        dict[str, float | None],
        Field(
            default_factory=dict,
            description="Limits to set in the same decision, by name; the others stay.",
        ),
    ],
) -> Change:
    """Put another scheduling policy in force. Waiting requests are reordered at once."""
    complete_params(policy, params)
    return {"policy": policy, "params": params, **limits}
