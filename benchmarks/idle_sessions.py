"""Idle sessions of c, created through the API: memory of each, and a turn on a random one against one on the only one.

BENCH_SESSIONS=1000000 creates a million; it takes 10 minutes and 10 GB. It stops when less than 4 GiB of the machine's
memory are free.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.measure import show
from benchmarks.processes import available_bytes, elman_server, load_client, resident_bytes

if TYPE_CHECKING:
    from benchmarks.measure import Table

SESSIONS: Final = int(os.environ.get("BENCH_SESSIONS", "30000"))
SLICE: Final = 10_000
SPARE_BYTES: Final = 4 * 2**30
STATE_BYTES: Final = 2 * 2 * 512 * 4  # LSTM 2x512: h and c of two layers, float32
TURNS: Final = 60
ANY_NUMBER: Final = ("--max-sessions", str(10**8), "--max-session-bytes", str(2**40))


def run(table: Table, rounds: int) -> None:
    """Add bytes a session, sessions created in a second, and the ratio of turns."""
    folder = models("c")
    with load_client() as load, elman_server(folder) as lonely, elman_server(folder, *ANY_NUMBER) as server:
        load(address=lonely.address, mode="sessions", model="c", first=0, end=1)
        load(address=server.address, mode="sessions", model="c", first=0, end=1)
        load(address=server.address, mode="turns", sessions=1, turns=TURNS)
        before, seconds, made = resident_bytes(server.pid), 0.0, 1
        while made < SESSIONS and available_bytes() > SPARE_BYTES:
            end = min(made + SLICE, SESSIONS)
            seconds += load(address=server.address, mode="sessions", model="c", first=made, end=end)["seconds"]
            made = end
            show(f"idle_sessions: {made:,} of {SESSIONS:,}, {made / seconds:,.0f}/s")
        num_bytes = (resident_bytes(server.pid) - before) / made  # less than the state: a new one is zeros, and packed
        table.add("idle sessions", "", made)
        table.add("memory of a new session", "bytes", num_bytes, at_most=STATE_BYTES + 1024)
        table.add("sessions created in a second", "1/s", made / seconds)
        for number in table.rounds(rounds):
            alone = load(address=lonely.address, mode="turns", sessions=1, turns=TURNS)["p50"]
            among = load(address=server.address, mode="turns", sessions=made, turns=TURNS, seed=number)
            table.add("turn on a random session, p50", "ms", 1e3 * among["p50"])
            table.add("turn on a random session, p99", "ms", 1e3 * among["p99"])
            table.add("turn on a random session / on the only one", "ratio", among["p50"] / alone, at_most=1.2)
            page = load(address=server.address, mode="page", model="c", number=made + number)["seconds"]
            table.add("first page of the list", "ms", 1e3 * page)
