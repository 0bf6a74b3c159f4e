"""May an agent keep KV blocks free? Called by the KV and admission agent."""

from typing import Any

from pydantic import Field

from tools.tool import Tool, ToolArgs

MAX_RESERVE = 0.5  # more would idle half of the cache on a prediction


class SetKVReserveArgs(ToolArgs):
    """The share of KV blocks that admission leaves free."""

    fraction: float = Field(
        ge=0.0, le=MAX_RESERVE, description="Share of KV blocks predicted peaks leave free."
    )


def _change(args: SetKVReserveArgs) -> dict[str, Any]:
    return {"kv_reserve": args.fraction}


TOOL = Tool(
    name="set_kv_reserve",
    description="Keep a share of KV blocks free of predicted peaks: fewer preemptions, "
    "later admission.",
    args=SetKVReserveArgs,
    change=_change,
)
