"""May an agent hold tenants to their shares? Called by the tenant shares agent."""

from tools.tool import limit_tool

set_tenant_buckets = limit_tool("tenant_buckets")
