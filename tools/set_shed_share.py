"""May an agent have requests refused? Called by the admission agent."""

from tools.tool import limit_tool

set_shed_share = limit_tool("shed")
