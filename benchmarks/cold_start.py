"""From the command `elman-server` to SERVING with the bundled models, and the time to import the client."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from benchmarks.processes import ROOT, elman_server

if TYPE_CHECKING:
    from benchmarks.measure import Table

_IMPORT: Final = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def run(table: Table, rounds: int) -> None:
    """Add the seconds until the server serves and the milliseconds of the imports."""
    for _ in table.rounds(rounds):
        begin = time.perf_counter()
        with elman_server(None):
            table.add("start to SERVING", "s", time.perf_counter() - begin, at_most=1.5)
        table.add("import elman_client", "ms", _import("import elman_client"), at_most=150)
        table.add("from elman_client import Client", "ms", _import("from elman_client import Client"), at_most=150)
        table.add("import grpc", "ms", _import("import grpc"))


def _import(statement: str) -> float:
    command = [sys.executable, "-c", _IMPORT.format(statement)]
    return 1e3 * float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
