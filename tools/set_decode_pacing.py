"""May an agent leave decodes out of a step? Called by the batching agent."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool


@tool
def set_decode_pacing(
    on: Annotated[bool, Field(description="Each at its own pace, or all in every step.")],
) -> Change:
    """Let decodes whose next token is not due sit out steps too long for the tightest TPOT."""
    return {"pace_decodes": on}
