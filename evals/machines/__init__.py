"""What does a step cost on a machine? Profiles, and the kernels and fits they come from."""
