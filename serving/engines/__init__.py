"""Engines a controller can drive: `live` (HTTP) and `simulated` (virtual time)."""

import logging

# Who drives an engine is no vLLM server: advice that vLLM logs when imported is not for them.
logging.getLogger("vllm").setLevel(logging.ERROR)
