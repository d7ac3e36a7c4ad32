"""The transport: gRPC calls become calls of the domain; its results and errors become messages and statuses."""

import os

# gRPC's C core writes to standard error, beside the log; what matters reaches Python as an exception.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
