"""How is vLLM started with the hook? `hmas serve`, and the embedded model."""
