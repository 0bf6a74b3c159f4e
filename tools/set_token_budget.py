"""May an agent size the steps? Called by the batching agent, and when the loop starts."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool


@tool
def set_token_budget(
    max_tokens: Annotated[
        int, Field(ge=1, le=1_000_000, description="Most tokens one step may schedule.")
    ],
    follow_slack: Annotated[
        bool, Field(description="Also size each step by the slack of its tightest decode.")
    ],
) -> Change:
    """Bound the tokens of one step.

    Smaller steps give steadier decodes, larger ones faster prefill.
    """
    return {"token_budget": max_tokens, "follow_slack": follow_slack}
