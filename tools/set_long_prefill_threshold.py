"""May an agent keep long prompts from holding the batch? Called by the balance agent."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool


@tool
def set_long_prefill_threshold(
    max_tokens: Annotated[
        int,
        Field(ge=0, le=1_000_000, description="Most tokens of one prompt per step; 0 is no bound."),
    ],
) -> Change:
    """Bound the tokens of one prompt per step, so that short prompts fit beside it."""
    return {"long_prefill_threshold": max_tokens}
