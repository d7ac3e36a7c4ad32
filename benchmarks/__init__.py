"""Benchmarks: one command each, `python -m benchmarks.NAME`; `make bench` runs all of them."""
