"""How are arms run in virtual time? Cases over all cores, capacity, and what bounds them."""
