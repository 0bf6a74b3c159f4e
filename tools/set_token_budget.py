"""May an agent size the steps? Called by the batching agent, and when the loop starts."""

from typing import Annotated

from tools.tool import Change, limit_field, tool


@tool
def set_token_budget(
    max_tokens: Annotated[int, limit_field("token_budget")],
    follow_slack: Annotated[bool, limit_field("follow_slack")],
) -> Change:
    """Bound the tokens of a step, and say whether steps follow the slack of decodes."""
    return {"token_budget": max_tokens, "follow_slack": follow_slack}
