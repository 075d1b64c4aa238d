"""Probes: which checks there are, the Job that runs them, what it says, and what becomes of a `StackProbe`."""
