"""How are arms run on a real server? Load generator, servers, and one arm after the other."""
