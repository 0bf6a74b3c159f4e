"""What may a person ask on the command line? One command per file, loaded by `hmas_agents.cli`."""
