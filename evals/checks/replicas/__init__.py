"""Does one controller of many replicas do what it should, and at what cost? In virtual time."""
