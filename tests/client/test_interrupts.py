"""Ctrl-C, at any moment: no interrupt is lost, none leaves the client dead, and every text is exact."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_COUNT = 100


def test_interrupts_leave_the_client_alive(server):
    """A hundred turns are interrupted at random moments; each interrupt arrives, and the next turn works."""
    command = [sys.executable, "-m", "tests.client.interrupted", server.target, str(_COUNT), "0.02"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=_ROOT)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{_COUNT}\n", "")
