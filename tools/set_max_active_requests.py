"""May an agent bound concurrency? Called by hand, or by a model in the admission agent's place."""

from tools.tool import limit_tool

set_max_active_requests = limit_tool("max_active_requests")
