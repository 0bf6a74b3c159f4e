"""What does the hook cost? Its scheduler against vLLM's own, in one process."""
