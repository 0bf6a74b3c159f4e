"""May an agent say whom a full KV cache hits? Called by the KV agent."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool


@tool
def set_victim_choice(
    on: Annotated[bool, Field(description="By least loss, or the latest admitted as vLLM does.")],
) -> Change:
    """Choose by least loss who is preempted when KV blocks run out."""
    return {"choose_victims": on}
