"""vLLM's two plugin entry points: engine-side methods, and the HTTP routes over them."""
