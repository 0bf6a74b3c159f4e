"""May an agent bound concurrency? Called by hand, or by a model in the admission agent's place."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool


@tool
def set_max_active_requests(
    max_requests: Annotated[
        int, Field(ge=1, le=100_000, description="Requests that may run at once.")
    ],
) -> Change:
    """Bound the requests that run at once. Lowering drains, it never kills."""
    return {"max_active_requests": max_requests}
