"""May an agent bound concurrency? Called by the KV and admission agent."""

from typing import Any

from pydantic import Field

from tools.tool import Tool, ToolArgs


class SetMaxActiveRequestsArgs(ToolArgs):
    """The largest running batch."""

    max_requests: int = Field(ge=1, le=100_000, description="Requests that may run at once.")


def _change(args: SetMaxActiveRequestsArgs) -> dict[str, Any]:
    return {"max_active_requests": args.max_requests}


TOOL = Tool(
    name="set_max_active_requests",
    description="Bound the requests that run at once. Lowering drains, it never kills.",
    args=SetMaxActiveRequestsArgs,
    change=_change,
)
