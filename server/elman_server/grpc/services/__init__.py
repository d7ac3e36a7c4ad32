"""The services of elman.v1: convert, call, convert."""
