"""May an agent keep a part of each step for prefill? Called by the balance agent."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool

MAX_SHARE = 0.6  # more would stall decodes for prompts that may be late anyway


@tool
def set_prefill_share(
    share: Annotated[
        float,
        Field(ge=0.0, le=MAX_SHARE, description="Share of the step's time for prefill; 0: none."),
    ],
) -> Change:
    """Give prefill at least a share of the step's time while a waiting deadline is near."""
    return {"prefill_share": share}
