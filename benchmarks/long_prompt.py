"""A prompt of 10,000 characters arrives beside 64 running streams: how much it delays any of their characters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.processes import elman_server, load_client

if TYPE_CHECKING:
    from benchmarks.measure import Table

MODEL: Final = "c"
STREAMS: Final = 64
PROMPT_CHARS: Final = 10_000
SECONDS: Final = 2.0
FLUSH_MS: Final = 20
GRACE_MS: Final = 10


def run(table: Table, rounds: int) -> None:
    """Add the longest time between pieces with and without the prompt, and how much longer it is than usual.

    Usual is the median without the prompt.
    """
    flags = ("--max-chars", str(10**9), "--flush-interval-ms", str(FLUSH_MS))
    with load_client() as load, elman_server(models(MODEL), *flags) as server:
        for _ in table.rounds(rounds):
            calm, disturbed = (
                load(address=server.address, model=MODEL, streams=STREAMS, seconds=SECONDS, prompt_chars=size)
                for size in (0, PROMPT_CHARS)
            )
            table.add("longest time between pieces, no prompt", "ms", 1e3 * calm["gap_max"])
            table.add("longest time between pieces, prompt of 10,000", "ms", 1e3 * disturbed["gap_max"])
            delay = 1e3 * (disturbed["gap_max"] - calm["gap_p50"])
            table.add("delay by the prompt", "ms", delay, at_most=FLUSH_MS + GRACE_MS)
            table.add("prompt of 10,000 to its first character", "ms", 1e3 * disturbed["probes"][0])
