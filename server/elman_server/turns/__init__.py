"""Turns: parse, plan, run, deliver, commit."""
