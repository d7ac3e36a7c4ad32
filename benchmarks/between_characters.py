"""The silence between two pieces of a stream, and fairness, at 64 equal streams."""

from __future__ import annotations

from benchmarks.artefacts import models
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load

MODEL = "c"
STREAMS = 64
SECONDS = 2.0


def run(table: Table, rounds: int) -> None:
    """Add the p99 silence in flush intervals, and the slowest stream's share of the mean."""
    with elman_server(models(MODEL), "--max-chars", str(10**9)) as server:
        for _ in range(rounds):
            got = load(address=server.address, model=MODEL, streams=STREAMS, seconds=SECONDS)
            table.add("between pieces, p50", "ms", 1e3 * got["gap_p50"])
            table.add("between pieces, p99", "ms", 1e3 * got["gap_p99"])
            table.add("between pieces, p99 / p50", "ratio", got["gap_p99"] / got["gap_p50"], at_most=2)
            table.add("slowest stream / mean", "ratio", got["fairness"], at_least=0.9)


if __name__ == "__main__":
    command(run, __doc__)
