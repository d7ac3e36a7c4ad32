"""Idle sessions of c, made through the API: memory of each, and a turn on any of them against a turn on the only one.

BENCH_SESSIONS=1000000 makes a million.
"""

from __future__ import annotations

import os

from benchmarks.artefacts import models
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load, resident_bytes

SESSIONS = int(os.environ.get("BENCH_SESSIONS", "30000"))
STATE_BYTES = 2 * 2 * 512 * 4  # LSTM 2x512: h and c of two layers
TURNS = 100


def run(table: Table, rounds: int) -> None:
    """Add bytes a session beside its state, sessions made in a second, and the ratio of turns."""
    most = ["--max-sessions", str(10**8), "--max-session-bytes", str(2**40)]
    with elman_server(models("c"), *most) as server:
        load(address=server.address, mode="sessions", model="c", sessions=1)
        alone = [load(address=server.address, mode="turns", sessions=1, turns=TURNS)["p50"] for _ in range(rounds)]
        before = resident_bytes(server.pid)
        made = load(address=server.address, mode="sessions", model="c", sessions=SESSIONS)
        beside = (resident_bytes(server.pid) - before) / SESSIONS - STATE_BYTES
        table.add(f"bytes of one of {SESSIONS} sessions beside its state", "bytes", beside, at_most=1024)
        table.add("sessions made", "1/s", SESSIONS / made["seconds"])
        for before_all in alone:
            among = load(address=server.address, mode="turns", sessions=SESSIONS, turns=TURNS)["p50"]
            table.add("turn on a random session", "ms", 1e3 * among)
            table.add("turn on a random session / on the only one", "ratio", among / before_all, at_most=1.2)


if __name__ == "__main__":
    command(run, __doc__)
