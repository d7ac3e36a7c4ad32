"""The number that `--engine-threads auto` chooses, from the log, against 1 and 2.

The server that chose is not measured beside them: with the same number it is the same server, and any difference is
chance.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.processes import elman_server, load_client

if TYPE_CHECKING:
    from benchmarks.measure import Table

CASES: Final = (("a", 64), ("c", 1), ("c", 64), ("c-int8", 64))
FIXED: Final = (1, 2)
SECONDS: Final = 0.6
BAR: Final = 0.95


def run(table: Table, rounds: int) -> None:
    """Add characters a second with each number, and those of the chosen one against the best."""
    folder = models(*dict.fromkeys(name for name, _ in CASES))
    with ExitStack() as stack:
        load = stack.enter_context(load_client())
        flags = ("--max-chars", str(10**9), "--engine-threads")
        servers = {count: stack.enter_context(elman_server(folder, *flags, str(count))) for count in FIXED}
        with elman_server(folder, *flags, "auto") as automatic:
            chosen = automatic.threads()
        for _ in table.rounds(rounds):
            for name, streams in CASES:
                options = {"model": name, "streams": streams, "seconds": SECONDS}
                rates = {count: load(address=server.address, **options)["rate"] for count, server in servers.items()}
                for count, rate in rates.items():
                    table.add(f"{name} {streams}, threads {count}", "characters/s", rate)
                case = f"{name} {streams}, threads auto (chose {chosen[name]})"
                table.add(f"{case} / the best", "ratio", rates[chosen[name]] / max(rates.values()), at_least=BAR)
