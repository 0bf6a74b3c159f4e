"""May an agent keep long prompts from holding the batch? Called by the balance agent."""

from typing import Any

from pydantic import Field

from tools.tool import Tool, ToolArgs


class SetLongPrefillThresholdArgs(ToolArgs):
    """The largest share of one prompt in a step."""

    max_tokens: int = Field(
        ge=0, le=1_000_000, description="Most tokens of one prompt per step; 0 is no bound."
    )


def _change(args: SetLongPrefillThresholdArgs) -> dict[str, Any]:
    return {"long_prefill_threshold": args.max_tokens}


TOOL = Tool(
    name="set_long_prefill_threshold",
    description="Bound the tokens of one prompt per step, so that short prompts fit beside it.",
    args=SetLongPrefillThresholdArgs,
    change=_change,
)
