"""What a machine may lack: such a test is skipped, or fails where all is required."""

import os

import pytest


def need(thing: str, *, is_there: bool, switch: str = "REQUIRE_SERVICES") -> None:
    """Skip the test if a thing is missing; with the environment variable `switch` set, fail it."""
    if is_there:
        return
    if os.environ.get(switch):
        pytest.fail(f"{thing} is missing, and {switch} is set")
    pytest.skip(f"{thing} is missing")
