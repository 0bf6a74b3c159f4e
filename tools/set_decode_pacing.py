"""May an agent leave decodes out of a step? Called by the batching agent."""

from tools.tool import limit_tool

set_decode_pacing = limit_tool("pace_decodes")
