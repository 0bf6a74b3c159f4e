"""May an agent size the steps? Called by the batching agent, and when the loop starts."""

from typing import Any

from pydantic import Field

from tools.tool import Tool, ToolArgs


class SetTokenBudgetArgs(ToolArgs):
    """The largest step."""

    max_tokens: int = Field(ge=1, le=1_000_000, description="Most tokens one step may schedule.")
    follow_slack: bool = Field(
        description="Also size each step by the slack of its tightest decode."
    )


def _change(args: SetTokenBudgetArgs) -> dict[str, Any]:
    return {"token_budget": args.max_tokens, "follow_slack": args.follow_slack}


TOOL = Tool(
    name="set_token_budget",
    description="Bound the tokens of one step: smaller steps give steadier decodes, "
    "larger ones faster prefill.",
    args=SetTokenBudgetArgs,
    change=_change,
)
