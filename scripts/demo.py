"""The demo: start a server on the bundled models, stream a session's text as it is generated, stop the server.

Needs the package with its extra `server`, installed in any way. Run by `make demo`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elman_client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "ROMEO:\n"
NUM_CHARS = 600
STOP_SECONDS = 10


def main() -> None:
    """Run the demo."""
    with running_server() as address, Client(address) as client:
        session = client.create_session("shakespeare")
        print(PROMPT, end="", flush=True)
        begin = time.perf_counter()
        for text in session.generate(PROMPT, temperature=0.8, max_chars=NUM_CHARS):
            print(text, end="", flush=True)
        seconds = time.perf_counter() - begin
        digest = session.refresh().state_digest
        print(f"\n\n{NUM_CHARS} characters in {seconds:.2f} s: {NUM_CHARS / seconds:,.0f} characters a second")
        print(f"the session remembers them: {session.name}, state {digest[:12]}")


@contextmanager
def running_server() -> Iterator[str]:
    """Run a server on a free loopback port while entered; yield its address."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ELMAN_")}
    command = [sys.executable, "-m", "elman_server", "--listen", "127.0.0.1:0", "--log-format", "json"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield _address(server)
        finally:
            server.terminate()
            _, rest = server.communicate(timeout=STOP_SECONDS)
    if server.returncode:
        sys.exit(f"the server ended with {server.returncode}:\n{rest}")


def _address(server: subprocess.Popen[str]) -> str:
    """Wait until the server says that it serves, and where."""
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if '"event": "serving ' in line:
            return str(json.loads(line)["event"]).rpartition(" ")[2]
    sys.exit(f"the server did not start:\n{''.join(said)}")


if __name__ == "__main__":
    main()
