"""The domain: errors, requests, events, vocabulary and state; no gRPC, no I/O."""
