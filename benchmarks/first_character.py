"""The first character of a new turn on a warm channel, idle and beside 63 running streams, in steps of the bare model.

A probe is one Generate of one character from a model's beginning, from before the call to the arrival of the text.
"""

from __future__ import annotations

from benchmarks.artefacts import artefact, models
from benchmarks.bare import BareLoop
from benchmarks.load import quantile
from benchmarks.measure import Table, command
from benchmarks.processes import elman_server, load

MODEL = "c"
PROBES = 40
RUNNING = 63
STEP_SECONDS = 0.3


def run(table: Table, rounds: int) -> None:
    """Add p50 and p99 in milliseconds and in steps."""
    one, many = BareLoop(artefact(MODEL), 1), BareLoop(artefact(MODEL), RUNNING + 1)
    with elman_server(models(MODEL), "--max-chars", str(10**9)) as server:
        for _ in range(rounds):
            step = 1 / one.run(STEP_SECONDS)
            batched = (RUNNING + 1) / many.run(STEP_SECONDS)
            idle = _probes(server.address, 0)
            busy = _probes(server.address, RUNNING)
            table.add("first character idle, p50", "ms", 1e3 * quantile(idle, 0.5))
            table.add("first character idle, p50 / step", "ratio", quantile(idle, 0.5) / step, at_most=12)
            table.add(f"first character beside {RUNNING}, p50", "ms", 1e3 * quantile(busy, 0.5))
            for share, bar in ((0.5, 3), (0.99, 6)):
                name = f"first character beside {RUNNING}, p{share * 100:.0f} / batched step"
                table.add(name, "ratio", quantile(busy, share) / batched, at_most=bar)


def _probes(address: str, running: int) -> list[float]:
    got = load(address=address, model=MODEL, streams=running, seconds=0, probes=PROBES)
    return sorted(got["probes"])


if __name__ == "__main__":
    command(run, __doc__)
