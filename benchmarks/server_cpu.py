"""CPU time of the server for 1,000 characters at 64 streams, against the bare loop's: front and engine together."""

from __future__ import annotations

import time

from benchmarks.artefacts import artefact, models
from benchmarks.bare import BareLoop
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load

STREAMS = 64
SECONDS = 1.0
BARS = {"a": None, "b": None, "c": 1.15}


def run(table: Table, rounds: int) -> None:
    """Add CPU milliseconds for 1,000 characters, and their ratio."""
    loops = {name: BareLoop(artefact(name), STREAMS) for name in BARS}
    with elman_server(models(*BARS), "--max-chars", str(10**9)) as server:
        for _ in range(rounds):
            for name, loop in loops.items():
                begin = time.process_time()
                bare = loop.run(SECONDS)
                bare_ms = 1e6 * (time.process_time() - begin) / (bare * SECONDS)
                got = load(address=server.address, model=name, streams=STREAMS, seconds=SECONDS, pids=server.pids)
                front, *engines = (1e6 * seconds / got["num_chars"] for seconds in got["cpu_seconds"])
                table.add(f"CPU of the bare loop, {name} {STREAMS}", "ms/1,000", bare_ms)
                table.add(f"CPU of the front, {name} {STREAMS}", "ms/1,000", front)
                table.add(f"CPU of the engine, {name} {STREAMS}", "ms/1,000", sum(engines))
                ratio = (front + sum(engines)) / bare_ms
                table.add(f"CPU of the server / bare loop, {name} {STREAMS}", "ratio", ratio, at_most=BARS[name])


if __name__ == "__main__":
    command(run, __doc__)
