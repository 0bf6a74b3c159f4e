"""Engines a controller can drive: `live` (HTTP) and `simulated` (virtual time)."""
