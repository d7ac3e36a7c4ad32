"""Streaming throughput against the bare loop of the same batch, on the same machine, in alternating rounds.

Each round runs the bare loop (step and sampling), and then a client that reads the same number of streams from the
server over gRPC. Both step with one thread: the other core is for the front and the client. `threads` measures a second
thread. At 64 streams the table also has the CPU time of each process for 1,000 characters.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.artefacts import artefact, models
from benchmarks.bare import BareLoop
from benchmarks.processes import elman_server, load_client

if TYPE_CHECKING:
    from benchmarks.measure import Table

BARE_SECONDS: Final = 0.3
SECONDS: Final = 0.6
MODELS: Final = ("a", "b", "c", "c-int8")
STREAMS: Final = (1, 4, 16, 64, 256)
BARS: Final = {
    ("c", 1): 0.90,
    ("c", 16): 0.90,
    ("c", 64): 0.95,
    ("c", 256): 0.90,
    ("b", 64): 0.92,
    ("a", 64): 0.85,
    ("c-int8", 64): 0.92,
}
CPU_STREAMS: Final = 64
CPU_BARS: Final = {"c": 1.15}


def run(table: Table, rounds: int, name: str) -> None:
    """Add the ratios of one model with each number of streams."""
    flags = ("--max-chars", str(10**9), "--engine-threads", "1")
    with load_client() as load, elman_server(models(name), *flags) as server:
        loops = {streams: BareLoop(artefact(name), streams) for streams in STREAMS}
        for _ in table.rounds(rounds):
            for streams, loop in loops.items():
                begin = time.process_time()
                bare = loop.run(BARE_SECONDS)
                bare_cores = (time.process_time() - begin) / BARE_SECONDS
                got = load(address=server.address, model=name, streams=streams, seconds=SECONDS, pids=server.pids)
                case, bar = f"{name} {streams}", BARS.get((name, streams))
                table.add(f"streaming {case}", "characters/s", got["rate"])
                table.add(f"bare loop {case}", "characters/s", bare)
                table.add(f"streaming {case} / bare loop", "ratio", got["rate"] / bare, at_least=bar)
                if streams == CPU_STREAMS:
                    _add_cpu(table, name, bare_cores / bare, got)


def _add_cpu(table: Table, name: str, bare: float, got: dict[str, Any]) -> None:
    """Add the CPU time of each process; `bare` is that of the loop, in seconds for one character."""
    case = f"{name} {CPU_STREAMS}"
    parts = {"front": got["cores"][0], "engine": sum(got["cores"][1:]), "client": got["client_cores"]}
    spent = {part: cores / got["rate"] for part, cores in parts.items()}
    for part, seconds in {"bare loop": bare, **spent}.items():
        table.add(f"CPU of the {part}, {case}", "ms/1,000", 1e6 * seconds)
    ratio = (spent["front"] + spent["engine"]) / bare
    table.add(f"CPU of the server / bare loop, {case}", "ratio", ratio, at_most=CPU_BARS.get(name), is_cost=True)
