"""What a turn on a session costs: the server, its engine too, on one core, and the client on another.

    python -m benchmarks.turns                                            # all parts, two minutes
    python -m benchmarks.turns --only short_int8 --rounds 3
    python -m benchmarks.turns --only short_int8 --profile turns.svg      # py-spy on the front while it is loaded

Bars are for ratios of neighbours in one run, in alternating rounds. The floor is a `grpc.aio` server that sends the
messages that were recorded from ours in the same run, and does nothing else. The client (`benchmarks.load.http2`) uses
one connection and a fraction of its core; the table has what it used. `by CPU time` is the same ratio for a second of
the servers' CPU time instead of the clock's: it varies less while other processes run on the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from benchmarks import baseline
from benchmarks.artefacts import artefact, models
from benchmarks.bare import TEMPERATURE, TOP_K, TOP_P, BareLoop
from benchmarks.measure import ROUNDS, Table, show
from benchmarks.processes import elman_server, load_client, pinned, python_server, two_cores
from tests.redis_process import RedisProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.processes import Server

T = TypeVar("T")
SESSIONS: Final = 64
SHORT, LONG = 10, 200  # characters of a turn
SECONDS: Final = 1.0
RECORD_SECONDS: Final = 0.3
BARE_SECONDS: Final = 0.5
PROBES: Final = 64
BURSTS: Final = 5
PROFILE_SECONDS: Final = 5
SAMPLING: Final = {"temperature": TEMPERATURE}
BARE_SAMPLING: Final = {"temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P}
OF_FLOOR: Final = {"c-int8": 0.45}
OF_NAIVE: Final = {"c": 4.0, "c-int8": 7.0}
OF_BARE: Final = {"c": 0.85, "c-int8": 0.75}
OF_MEMORY: Final = {"sqlite": 0.6, "redis": 0.4}


class Bench(ExitStack):
    """The load client on one core and servers on another; leaving it stops them all.

    Attributes:
        load: runs a load in the client.
    """

    def __enter__(self) -> Self:
        """Start the client."""
        self._server_core, self._client_core = two_cores()
        self.load = self._start(self._client_core, load_client())
        return self

    def elman(self, model: str, *flags: str) -> Server:
        """Start our server, and create its sessions."""
        server = self._start(self._server_core, elman_server(models(model), "--engine-threads", "1", *flags))
        self.load(address=server.address, mode="sessions", model=model, first=0, end=SESSIONS)
        return server

    def naive(self) -> Server:
        """Start the naive server of the float32 model; a first turn creates a session."""
        return self._start(self._server_core, python_server("naive_server", str(artefact("c"))))

    def floor(self, recorded: list[list[str]]) -> Server:
        """Start a server that sends these messages."""
        path = self.folder() / "recorded.json"
        path.write_text(json.dumps(recorded))
        return self._start(self._server_core, python_server("floor_server", str(path)))

    def store(self, name: str) -> str:
        """Return the setting of a new store; a Redis runs on the client's core."""
        if name == "sqlite":
            return f"sqlite:{self.folder() / 'sessions.db'}"
        return self._start(self._client_core, RedisProcess(self.folder())).url

    def folder(self) -> Path:
        """Make a folder."""
        return Path(self.enter_context(tempfile.TemporaryDirectory()))

    def converse(self, server: Server, chars: int, sampling: dict[str, float], seconds: float = SECONDS) -> Any:
        """Keep a turn on every session of a server for this long."""
        options = {"chars": chars, "sampling": sampling, "first": 0, "sessions": SESSIONS}
        return self.load(address=server.address, mode="conversations", seconds=seconds, pids=server.pids, **options)

    def first_character(self, server: Server, mode: str, **options: int) -> float:
        """Return the median of the seconds to a first character."""
        options |= {"chars": SHORT, "first": 0, "sessions": SESSIONS}
        p50: float = self.load(address=server.address, mode=mode, sampling=SAMPLING, **options)["p50"]
        return p50

    def bare(self, loop: BareLoop) -> tuple[float, float]:
        """Run the bare loop on the core of the servers; return characters a second, and how much of the core it had."""
        with pinned(self._server_core):
            wall, cpu = time.perf_counter(), time.thread_time()
            rate = loop.run(BARE_SECONDS)
            return rate, (time.thread_time() - cpu) / (time.perf_counter() - wall)

    def _start(self, core: int, process: AbstractContextManager[T]) -> T:
        with pinned(core):
            return self.enter_context(process)


def short(table: Table, rounds: int, model: str) -> None:
    """Compare short turns with the floor's and the naive server's."""
    with Bench() as bench:
        ours, naive = bench.elman(model), bench.naive()
        floor = bench.floor(bench.converse(ours, SHORT, SAMPLING, RECORD_SECONDS)["recorded"])
        case = f"turns of {SHORT}, {model}"
        for _ in table.rounds(rounds):
            got = {
                "": bench.converse(ours, SHORT, SAMPLING),
                ", floor": bench.converse(floor, SHORT, SAMPLING),
                ", naive server": bench.converse(naive, SHORT, SAMPLING),
            }
            for name, found in got.items():
                _add_costs(table, f"{case}{name}", found)
            rate, of_floor, of_naive = (found["turns"] for found in got.values())
            table.add(f"{case} / floor", "ratio", rate / of_floor, at_least=OF_FLOOR.get(model))
            table.add(f"{case} / naive server", "ratio", rate / of_naive, at_least=OF_NAIVE[model])
            rate, of_floor, of_naive = (1 / sum(found["cpu"]) for found in got.values())
            table.add(f"{case} / floor, by CPU time", "ratio", rate / of_floor)
            table.add(f"{case} / naive server, by CPU time", "ratio", rate / of_naive)


def long(table: Table, rounds: int, model: str) -> None:
    """Compare the characters of long turns with the bare loop's on the same core."""
    with Bench() as bench:
        server, loop, case = bench.elman(model), BareLoop(artefact(model), SESSIONS), f"turns of {LONG}, {model}"
        for _ in table.rounds(rounds):
            bare, cores = bench.bare(loop)
            got = bench.converse(server, LONG, BARE_SAMPLING)
            _add_costs(table, case, got)
            table.add(f"{case}, bare loop", "characters/s", bare)
            table.add(f"{case} / bare loop", "ratio", got["turns"] * LONG / bare, at_least=OF_BARE[model])
            table.add(f"{case} / bare loop, by CPU time", "ratio", LONG / sum(got["cpu"]) / (bare / cores))


def first_character(table: Table, rounds: int) -> None:
    """Compare the first character of an idle session with the naive server's."""
    with Bench() as bench:
        servers = {"": bench.elman("c"), ", naive server": bench.naive()}
        case = "first character of an idle session"
        for _ in table.rounds(rounds):
            ours, theirs = (bench.first_character(each, "one_by_one", turns=PROBES) for each in servers.values())
            table.add(f"{case}, p50", "ms", 1e3 * ours)
            table.add(f"{case}, naive server, p50", "ms", 1e3 * theirs)
            table.add(f"{case} / naive server", "ratio", ours / theirs, at_most=1.25)


def together(table: Table, rounds: int) -> None:
    """Compare the first characters of turns that begin together with a batched step."""
    with Bench() as bench:
        server, loop, case = bench.elman("c"), BareLoop(artefact("c"), SESSIONS), f"{SESSIONS} turns begin together"
        for _ in table.rounds(rounds):
            step = SESSIONS / bench.bare(loop)[0]
            first = bench.first_character(server, "all_at_once", bursts=BURSTS)
            table.add(f"{case}, first character, p50", "ms", 1e3 * first)
            table.add(f"{case}, first character, p50 / batched step", "ratio", first / step, at_most=8)


def store(table: Table, rounds: int, name: str) -> None:
    """Compare what the front needs for a short turn with what it needs with sessions in memory."""
    with Bench() as bench:
        servers = {"memory": bench.elman("c-int8"), name: bench.elman("c-int8", "--store", bench.store(name))}
        case = f"turns of {SHORT} in {name}"
        for _ in table.rounds(rounds):
            memory, got = (bench.converse(server, SHORT, SAMPLING) for server in servers.values())
            _add_costs(table, case, got)
            table.add(f"{case} / memory", "ratio", got["turns"] / memory["turns"])
            ratio = memory["cpu"][0] / got["cpu"][0]
            table.add(f"{case}, turns a core of the front / memory", "ratio", ratio, at_least=OF_MEMORY[name])


def _add_costs(table: Table, case: str, got: dict[str, Any]) -> None:
    """Add how many turns came, in how many messages, and the CPU of a turn in each process."""
    table.add(case, "turns/s", got["turns"])
    table.add(f"{case}: messages", "1/turn", got["messages"])
    front, *engines = got["cpu"]
    table.add(f"{case}: CPU of the front", "ms/turn", 1e3 * front)
    if engines:
        table.add(f"{case}: CPU of the engine", "ms/turn", 1e3 * sum(engines))
    table.add(f"{case}: client", "cores", got["client_cores"])


PARTS: Final[dict[str, Callable[[Table, int], None]]] = {
    "short_float32": partial(short, model="c"),
    "short_int8": partial(short, model="c-int8"),
    "long_float32": partial(long, model="c"),
    "long_int8": partial(long, model="c-int8"),
    "first_character": first_character,
    "together": together,
    "sqlite": partial(store, name="sqlite"),
    "redis": partial(store, name="redis"),
}
PROFILED: Final = {  # model, characters of a turn, sampling, store
    "short_float32": ("c", SHORT, SAMPLING, ""),
    "short_int8": ("c-int8", SHORT, SAMPLING, ""),
    "long_float32": ("c", LONG, BARE_SAMPLING, ""),
    "long_int8": ("c-int8", LONG, BARE_SAMPLING, ""),
    "sqlite": ("c-int8", SHORT, SAMPLING, "sqlite"),
    "redis": ("c-int8", SHORT, SAMPLING, "redis"),
}


def run(table: Table, rounds: int, names: Sequence[str] = tuple(PARTS)) -> None:
    """Add the figures of these parts."""
    for name in names:
        if name == "redis" and not shutil.which("redis-server"):
            print("redis-server is not installed: no turns in Redis", file=sys.stderr)
            continue
        PARTS[name](table, rounds)


def profile(name: str, path: Path) -> None:
    """Write what py-spy sees of the front under the load of one part: a flame graph, or by suffix .txt or .json."""
    model, chars, sampling, store_name = PROFILED[name]
    formats = {".txt": "raw", ".json": "speedscope"}
    with Bench() as bench:
        server = bench.elman(model, *(["--store", bench.store(store_name)] if store_name else []))
        command = ["py-spy", "record", "--pid", str(server.pid), "--duration", str(PROFILE_SECONDS), "--rate", "250"]
        command += ["--nonblocking", "--output", str(path), "--format", formats.get(path.suffix, "flamegraph")]
        with subprocess.Popen(command) as spy:
            bench.converse(server, chars, sampling, PROFILE_SECONDS)
        if spy.returncode:
            raise SystemExit(f"py-spy ended with {spy.returncode}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="a part, again for another one; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternating rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("build/turns.json"), help="default: %(default)s")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="only profile the front, with py-spy")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    names = options.only or list(PARTS)
    if options.profile:
        if len(names) != 1 or names[0] not in PROFILED:
            parser.error(f"--profile needs --only with one of {', '.join(PROFILED)}")
        if not shutil.which("py-spy"):
            parser.error("py-spy is not on the PATH: pip install py-spy")
        profile(names[0], options.profile)
        return
    table = Table()
    table.begin("turns")
    run(table, options.rounds, names)
    show("")
    print(table.text(baseline.compared()))
    table.write(options.json)


if __name__ == "__main__":
    main()
