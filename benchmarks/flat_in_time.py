"""One session at character 1,000 and at character 1,000,000: how long a turn takes, and what its memory weighs."""

from __future__ import annotations

from benchmarks.artefacts import models
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load

EARLY, LATE = 1_000, 1_000_000
TURNS = 60


def run(table: Table, rounds: int) -> None:
    """Add the ratios, late over early."""
    with elman_server(models("a"), "--max-chars", "10000000", "--max-prompt-chars", "10000000") as server:
        options = {"address": server.address, "mode": "ages", "model": "a", "turns": TURNS}
        got = load(**options, positions=[EARLY, LATE], rounds=rounds, engine=server.pids[1])
        for early, late in zip(*got["p50"], strict=True):
            table.add(f"turn at character {EARLY}", "ms", 1e3 * early)
            table.add(f"turn at character {LATE} / at {EARLY}", "ratio", late / early, at_most=1.05)
        early, late = got["engine_bytes"]
        table.add(f"memory of the engine at character {LATE} / at {EARLY}", "ratio", late / early, at_most=1.05)


if __name__ == "__main__":
    command(run, __doc__)
