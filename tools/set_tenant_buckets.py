"""May an agent hold tenants to their shares? Called by the tenant shares agent."""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool


@tool
def set_tenant_buckets(
    on: Annotated[bool, Field(description="Hold tenants to their shares, or not.")],
) -> Change:
    """Serve what a tenant sends beyond its share last, while others wait."""
    return {"tenant_buckets": on}
