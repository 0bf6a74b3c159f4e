"""A fleet of engines: who is in it, and how one controller drives them all."""
