"""The time between two pieces of a stream, and fairness, at 64 equal streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.processes import elman_server, load_client

if TYPE_CHECKING:
    from benchmarks.measure import Table

MODEL: Final = "c"
STREAMS: Final = 64
SECONDS: Final = 2.0
FLUSH_MS: Final = 20


def run(table: Table, rounds: int) -> None:
    """Add the p99 time between pieces in flush intervals, and the slowest stream's rate as a share of the mean."""
    flags = ("--max-chars", str(10**9), "--flush-interval-ms", str(FLUSH_MS))
    with load_client() as load, elman_server(models(MODEL), *flags) as server:
        for _ in table.rounds(rounds):
            got = load(address=server.address, model=MODEL, streams=STREAMS, seconds=SECONDS)
            table.add("between pieces, p50", "ms", 1e3 * got["gap_p50"])
            table.add("between pieces, p99", "ms", 1e3 * got["gap_p99"])
            table.add("between pieces, p99 / flush interval", "ratio", 1e3 * got["gap_p99"] / FLUSH_MS, at_most=2)
            table.add("slowest stream / mean", "ratio", got["fairness"], at_least=0.9)
