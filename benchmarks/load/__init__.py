"""The load: a client in a process of its own, over real gRPC; `python -m benchmarks.load`."""
