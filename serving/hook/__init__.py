"""How does the core act inside vLLM? Queue, limits, lease and snapshots of one engine core."""
