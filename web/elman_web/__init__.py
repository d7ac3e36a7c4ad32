"""An HTTP door and a page for Elman servers: a process of its own, and a client of the gRPC server like any other."""
