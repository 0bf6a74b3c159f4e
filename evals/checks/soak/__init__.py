"""Does it hold for long? A real server under random traffic and random decisions."""
