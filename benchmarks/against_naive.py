"""64 streams from Elman against 64 streams from the naive server, the same client, in alternating rounds."""

from __future__ import annotations

from benchmarks.artefacts import artefact, models
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load, naive_server

STREAMS = 64
SECONDS = 1.0
BARS = {"c": 10.0, "b": 10.0, "c-int8": 25.0}


def run(table: Table, rounds: int) -> None:
    """Add one ratio a model; int8 stands against the naive server of the float32 model."""
    with elman_server(models(*BARS), "--max-chars", str(10**9)) as server:
        for name, bar in BARS.items():
            with naive_server(artefact(name.partition("-")[0])) as naive:
                for _ in range(rounds):
                    theirs = _rate(naive.address, name.partition("-")[0])
                    ours = _rate(server.address, name)
                    table.add(f"naive server {name} {STREAMS}", "characters/s", theirs)
                    table.add(f"{name} {STREAMS} / naive server", "ratio", ours / theirs, at_least=bar)


def _rate(address: str, model: str) -> float:
    got = load(address=address, model=model, streams=STREAMS, seconds=SECONDS)
    return float(got["num_chars"] / got["seconds"])


if __name__ == "__main__":
    command(run, __doc__)
