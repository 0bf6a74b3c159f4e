"""May an agent keep KV blocks free? Called by the KV and admission agent."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool

MAX_RESERVE = 0.5  # more would idle half of the cache on a prediction


@tool
def set_kv_reserve(
    fraction: Annotated[
        float,
        Field(ge=0.0, le=MAX_RESERVE, description="Share of KV blocks predicted peaks leave free."),
    ],
) -> Change:
    """Keep a share of KV blocks free of predicted peaks: fewer preemptions, later admission."""
    return {"kv_reserve": fraction}
