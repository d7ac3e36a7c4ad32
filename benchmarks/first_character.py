"""The first character of a new turn on a warm channel, idle and beside 63 running streams, in steps of the bare model.

A probe is one Generate of one character from a model's beginning, from before the call to the arrival of the text. The
step has as many threads as the server's. The idle figure is also given in steps of one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import artefact, models
from benchmarks.bare import BareLoop
from benchmarks.measure import quantile
from benchmarks.processes import elman_server, load_client

if TYPE_CHECKING:
    from benchmarks.measure import Table

MODEL: Final = "c"
PROBES: Final = 100
RUNNING: Final = 63
STEP_SECONDS: Final = 0.3


def run(table: Table, rounds: int) -> None:
    """Add p50 and p99 in milliseconds and in steps."""
    with load_client() as load, elman_server(models(MODEL), "--max-chars", str(10**9)) as server:
        threads = server.threads()[MODEL]
        one, many = (BareLoop(artefact(MODEL), batch, threads) for batch in (1, RUNNING + 1))
        plain = BareLoop(artefact(MODEL), 1)
        for _ in table.rounds(rounds):
            step, batched = 1 / one.run(STEP_SECONDS), (RUNNING + 1) / many.run(STEP_SECONDS)
            plain_step = 1 / plain.run(STEP_SECONDS)
            idle, busy = (
                load(address=server.address, model=MODEL, streams=streams, seconds=0, probes=PROBES)["probes"]
                for streams in (0, RUNNING)
            )
            table.add("first character idle, p50", "ms", 1e3 * quantile(idle, 0.5))
            table.add("first character idle, p50 / step", "ratio", quantile(idle, 0.5) / step, at_most=12)
            table.add(
                "first character idle, p50 / step of one thread",
                "ratio",
                quantile(idle, 0.5) / plain_step,
                is_cost=True,
            )
            table.add("first character idle, p99", "ms", 1e3 * quantile(idle, 0.99))
            for share, bar in ((0.5, 3), (0.99, 6)):
                name = f"first character beside {RUNNING}, p{share * 100:.0f}"
                table.add(name, "ms", 1e3 * quantile(busy, share))
                table.add(f"{name} / batched step", "ratio", quantile(busy, share) / batched, at_most=bar)
