"""What is the model told? Versioned prompt text and its loader."""
