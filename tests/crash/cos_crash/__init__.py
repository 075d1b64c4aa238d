"""Crash tests: a real operator, a real API server, and between them a proxy that kills, refuses and lies."""
