"""What runs in and next to the vLLM engine: contracts, scheduler hook, perception, engines."""
