"""One session at character 1,000 and at character 1,000,000: the time of a turn, and the engine's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.processes import elman_server, load_client

if TYPE_CHECKING:
    from benchmarks.measure import Table

EARLY, LATE = 1_000, 1_000_000
TURNS: Final = 60


def run(table: Table, rounds: int) -> None:
    """Add the ratios, late to early."""
    flags = ("--max-chars", "10000000", "--max-prompt-chars", "10000000")
    with load_client() as load, elman_server(models("a"), *flags) as server:
        options = {"mode": "ages", "model": "a", "turns": TURNS, "engine": server.pids[1]}
        got = load(address=server.address, positions=[EARLY, LATE], rounds=rounds, **options)
    for early, late in zip(*got["p50"], strict=True):
        table.add(f"turn at character {EARLY}", "ms", 1e3 * early)
        table.add(f"turn at character {LATE} / at {EARLY}", "ratio", late / early, at_most=1.05)
    early, late = got["engine_bytes"]
    table.add(f"memory of the engine at character {LATE} / at {EARLY}", "ratio", late / early, at_most=1.05)
