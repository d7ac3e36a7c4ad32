"""What it costs to be observed: counters, a scrape every 15 seconds, a health check every 5.

All by CPU time, which other programs on the machine change little. A turn has ten characters and two messages, as on a
quiet machine: counting is the dearest there. What a turn counts is timed alone, because two servers differ by more.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.processes import ROOT, elman_server, load_client
from elman_server.engine.tally import Tally
from elman_server.process.observe.call import Call
from elman_server.process.observe.counters import Counters

if TYPE_CHECKING:
    from benchmarks.measure import Table
    from benchmarks.processes import Server

MODEL: Final = "a"
SESSIONS: Final = 64
CHARS: Final = 10
SECONDS: Final = 2.0
NUM_COUNTED: Final = 20_000
TIMES: Final = 50
SCRAPE_SECONDS: Final = 15
CHECK_SECONDS: Final = 5
_TICK: Final = os.sysconf("SC_CLK_TCK")


def run(table: Table, rounds: int) -> None:
    """Add the cost of counting, against a turn of the front and a step of the engine, and that of the two requests."""
    with load_client() as load, elman_server(models(MODEL), "--metrics-listen", "127.0.0.1:0") as server:
        common = {"address": server.address, "first": 0}
        load(**common, mode="sessions", model=MODEL, end=SESSIONS)
        for _ in table.rounds(rounds):
            turns = {"chars": CHARS, "sampling": {"temperature": 0.8}, "sessions": SESSIONS, "pids": server.pids}
            front, engine = load(**common, **turns, mode="conversations", seconds=SECONDS)["cpu"]
            counted, stepped = _counted()
            table.add("counting, of a turn's time in the front", "%", 100 * counted / front, at_most=1)
            # At least: a step of one row for each character.
            table.add("counting, of a turn's time in the engine", "%", 100 * CHARS * stepped / engine, at_most=1)
            table.add("a scrape every 15 s, of a core", "%", 100 * _scrape(server) / SCRAPE_SECONDS, at_most=1)
            table.add("a health check every 5 s, of a core", "%", 100 * _check(server) / CHECK_SECONDS, at_most=1)


def _counted() -> tuple[float, float]:
    """Return the CPU seconds of what a turn counts, and of what a step counts."""
    counters, tally = Counters(), Tally(SESSIONS)
    call = Call("/elman.v1.GenerationService/Generate", model=MODEL)
    begin = time.process_time()
    for _ in range(NUM_COUNTED):
        call.begin_turn("session")
        for num_chars in (1, CHARS - 1):
            counters.models[MODEL].delivered(num_chars, call)
        counters.turn_ended(call, "max_chars")
        counters.ended(call)
    between = time.process_time()
    for _ in range(NUM_COUNTED):
        tally.step(1)
    return (between - begin) / NUM_COUNTED, (time.process_time() - between) / NUM_COUNTED


def _scrape(server: Server) -> float:
    """Return the CPU seconds of a scrape."""
    before = _spent(server)
    for _ in range(TIMES):
        with urllib.request.urlopen(f"http://{_metrics_address(server)}/metrics") as answer:
            answer.read()
    return (_spent(server) - before) / TIMES


def _check(server: Server) -> float:
    """Return the CPU seconds of the image's health check, in its own processes and in the server."""
    environ = {**os.environ, "ELMAN_METRICS_LISTEN": _metrics_address(server)}
    before, own = _spent(server), os.times()
    for _ in range(TIMES):
        subprocess.run(["bash", ROOT / "server/healthcheck.sh"], env=environ, check=True)
    used = os.times()
    children = used.children_user + used.children_system - own.children_user - own.children_system
    return (_spent(server) - before + children) / TIMES


def _metrics_address(server: Server) -> str:
    return next(match[1] for line in server.log if (match := re.search(r'"address": "([^"]+)".*metrics_served', line)))


def _spent(server: Server) -> float:
    """Return the CPU seconds of a server so far, with those of threads that have ended."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK
