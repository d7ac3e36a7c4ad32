"""10,000 Generate streams open at once on one server: how long it takes until each has text, and what each weighs."""

from __future__ import annotations

import os
import sys
import time

from benchmarks.artefacts import models
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load, resident_bytes

STREAMS = int(os.environ.get("BENCH_STREAMS", "10000"))


def run(table: Table, rounds: int) -> None:
    """Add the time to open them all and the resident memory of front and engine for each; once, not once a round."""
    del rounds
    with elman_server(models("a"), "--max-streams", str(STREAMS), "--max-waiting", str(STREAMS)) as server:
        load(address=server.address, mode="open", model="a", streams=100, max_chars=100_000)
        before = [resident_bytes(pid) for pid in server.pids]
        begin = time.perf_counter()
        got = load(address=server.address, mode="open", model="a", streams=STREAMS, max_chars=100_000, pids=server.pids)
        print(f"{STREAMS} streams, {time.perf_counter() - begin:.1f} s in all", file=sys.stderr)
        front, *engines = (1e-3 * (now - then) / STREAMS for now, then in zip(got["resident"], before, strict=True))
        table.add(f"open {STREAMS} streams", "s", got["seconds_open"])
        table.add(f"first text of all {STREAMS}", "s", got["seconds_text"])
        table.add("memory of the front for a stream", "KB", front, at_most=30)
        table.add("memory of the engine for a stream", "KB", sum(engines))


if __name__ == "__main__":
    command(run, __doc__)
