"""Can the product and the evidence be trusted? Fidelity, soak and benchmarks."""
