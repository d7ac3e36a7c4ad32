"""10,000 Generate streams open at once on one server: the time until each has text, and the memory of each.

Beside them the same number on a server whose handler does nothing: the memory that gRPC itself needs. BENCH_STREAMS
sets another number.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.processes import elman_server, load_client, python_server, resident_bytes

if TYPE_CHECKING:
    from benchmarks.measure import Table
    from benchmarks.processes import Server

STREAMS: Final = int(os.environ.get("BENCH_STREAMS", "10000"))
FIRST: Final = 100  # are opened before, so that what is allocated once is there


def run(table: Table, rounds: int) -> None:
    """Add the time to open them all and the resident memory of front and engine for each; once, not in every round."""
    del rounds
    with elman_server(models("a"), "--max-streams", str(STREAMS), "--max-waiting", str(STREAMS)) as server:
        seconds_open, seconds_text, (front, *engines) = _open(server)
    with python_server("floor_server") as server:
        *_, (floor,) = _open(server)
    table.add(f"open {STREAMS} streams", "s", seconds_open)
    table.add(f"first text of all {STREAMS}", "s", seconds_text)
    table.add("memory of the front for a stream", "KB", front, at_most=30)
    table.add("memory of gRPC alone for a stream", "KB", floor, is_cost=True)
    table.add("memory of the engine for a stream", "KB", sum(engines), is_cost=True)


def _open(server: Server) -> tuple[float, float, list[float]]:
    """Open all streams; return the seconds until all are open and until all have text, and KB of each process."""
    with load_client() as load:
        load(address=server.address, mode="open", model="a", streams=FIRST, pids=[])
        before = [resident_bytes(pid) for pid in server.pids]
        got = load(address=server.address, mode="open", model="a", streams=STREAMS, pids=server.pids)
    kilobytes = [1e-3 * (now - then) / STREAMS for now, then in zip(got["resident"], before, strict=True)]
    return got["seconds_open"], got["seconds_text"], kilobytes
