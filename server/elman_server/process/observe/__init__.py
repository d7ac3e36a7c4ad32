"""Observation: what a call did, what the process counted, and who may look at it."""
