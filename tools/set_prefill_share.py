"""May an agent keep a part of each step for prefill? Called by the prefill agent."""

from tools.tool import limit_tool

set_prefill_share = limit_tool("prefill_share")
