"""A prompt of 10,000 characters arrives at 64 running streams: how long the longest silence of any of them becomes."""

from __future__ import annotations

from benchmarks.artefacts import models
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load

MODEL = "c"
STREAMS = 64
PROMPT_CHARS = 10_000
SECONDS = 2.0
GRACE_MS = 10


def run(table: Table, rounds: int) -> None:
    """Add the longest silence with and without the prompt, and by how much the prompt makes it longer."""
    with elman_server(models(MODEL), "--max-chars", str(10**9)) as server:
        for _ in range(rounds):
            calm, disturbed = (
                load(address=server.address, model=MODEL, streams=STREAMS, seconds=SECONDS, prompt_chars=size)
                for size in (0, PROMPT_CHARS)
            )
            table.add("longest silence, no prompt", "ms", 1e3 * calm["gap_max"])
            table.add("longest silence, prompt of 10,000", "ms", 1e3 * disturbed["gap_max"])
            delay = 1e3 * (disturbed["gap_max"] - calm["gap_p50"])  # p50 is the flush interval as it was
            table.add("delay by the prompt beyond one flush", "ms", delay, at_most=GRACE_MS)
            table.add("prompt of 10,000 to its first character", "ms", 1e3 * disturbed["probes"][0])


if __name__ == "__main__":
    command(run, __doc__)
