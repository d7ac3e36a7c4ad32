"""64 streams from Elman against 64 streams from the naive server, the same client, in alternating rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import artefact, models
from benchmarks.processes import elman_server, load_client, python_server

if TYPE_CHECKING:
    from benchmarks.measure import Table

STREAMS: Final = 64
SECONDS: Final = 0.6
BARS: Final = {"c": 10.0, "b": 10.0, "c-int8": 25.0}


def run(table: Table, rounds: int) -> None:
    """Add one ratio a model; int8 stands against the naive server of the float32 model."""
    with load_client() as load, elman_server(models(*BARS), "--max-chars", str(10**9)) as server:
        for name, bar in BARS.items():
            plain = name.partition("-")[0]
            with python_server("naive_server", str(artefact(plain))) as naive:
                for _ in table.rounds(rounds):
                    theirs = load(address=naive.address, model=plain, streams=STREAMS, seconds=SECONDS)["rate"]
                    ours = load(address=server.address, model=name, streams=STREAMS, seconds=SECONDS)["rate"]
                    table.add(f"naive server {name} {STREAMS}", "characters/s", theirs)
                    table.add(f"{name} {STREAMS} / naive server", "ratio", ours / theirs, at_least=bar)
