"""How many replicas does this traffic need, and what would a policy change? `hmas plan`."""
