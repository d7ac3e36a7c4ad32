"""The transport: gRPC calls become calls of the domain, its answers and errors become messages and statuses."""
