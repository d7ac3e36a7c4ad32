"""Streaming throughput against the bare loop of the same batch, on the same machine, in alternating rounds.

Each round runs the bare loop (step and sampling, one thread, as many as the engine takes) and then a client that reads
so many streams from the server over gRPC. Also what the server's processes take of the CPU for 1,000 characters.
"""

from __future__ import annotations

from benchmarks.artefacts import artefact, models
from benchmarks.bare import BareLoop
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load

SECONDS = 1.0
BARS = {
    ("c", 1): 0.90,
    ("c", 16): 0.90,
    ("c", 64): 0.95,
    ("c", 256): 0.90,
    ("b", 64): 0.92,
    ("a", 64): 0.85,
    ("c-int8", 64): 0.92,
}


def run(table: Table, rounds: int, cases: list[tuple[str, int]] | None = None) -> None:
    """Add the ratios of every case to the table."""
    cases = cases or list(BARS)
    loops = {case: BareLoop(artefact(case[0]), case[1]) for case in cases}
    with elman_server(models(*dict.fromkeys(name for name, _ in cases)), "--max-chars", str(10**9)) as server:
        for _ in range(rounds):
            for (name, streams), loop in loops.items():
                bare = loop.run(SECONDS)
                got = load(address=server.address, model=name, streams=streams, seconds=SECONDS, pids=server.pids)
                rate = got["num_chars"] / got["seconds"]
                table.add(f"streaming {name} {streams}", "characters/s", rate)
                table.add(f"bare loop {name} {streams}", "characters/s", bare)
                ratio = rate / bare
                table.add(f"streaming {name} {streams} / bare loop", "ratio", ratio, at_least=BARS.get((name, streams)))


if __name__ == "__main__":
    command(run, __doc__)
