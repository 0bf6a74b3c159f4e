"""May an agent keep KV blocks free? Called by the memory agent."""

from tools.tool import limit_tool

set_kv_reserve = limit_tool("kv_reserve")
