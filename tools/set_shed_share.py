"""May an agent have requests refused? Called by the admission agent."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool


@tool
def set_shed_share(
    share: Annotated[
        float, Field(ge=0.0, le=1.0, description="Share of sheddable requests to refuse; 0: none.")
    ],
) -> Change:
    """Refuse a share of the requests of the classes that the server may shed, with HTTP 503."""
    return {"shed": share}
