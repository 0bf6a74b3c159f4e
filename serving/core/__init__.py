"""Who is served, how much, who yields? Compiled decisions over arrays; no vLLM, no clock."""
