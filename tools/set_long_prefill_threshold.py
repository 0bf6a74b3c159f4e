"""May an agent keep long prompts from holding the batch? Called by the prefill agent."""

from tools.tool import limit_tool

set_long_prefill_threshold = limit_tool("long_prefill_threshold")
