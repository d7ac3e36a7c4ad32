"""Proof by breaking it: real servers, Redis and Envoy that are killed, paused and cut off under many readers."""
