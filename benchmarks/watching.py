"""What it costs to look inside: streams while a page watches 512 units, and a watch against steps of the bare model.

The server, its engine too, is pinned to one core, the client and the watcher to another. Each round reads 16 streams
alone and with a watcher beside, which begins again whenever it has read its text. Then the same text is watched alone,
and read by the bare model step by step. By CPU time the ratios hold on a busy machine too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import artefact, models
from benchmarks.load.streams import prompt_of
from benchmarks.processes import cpu_seconds, elman_server, load_client, pinned, two_cores
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.models.artefact import read_artefact

if TYPE_CHECKING:
    from benchmarks.measure import Table
    from benchmarks.processes import Load, Server

MODEL: Final = "c"
STREAMS: Final = 16
UNITS: Final = 512
WATCHED_CHARS: Final = 10_000
SECONDS: Final = 2.0
SIGNALS: Final = {"units": "SIGNAL_H", "gates": "SIGNAL_OUTPUT"}


def run(table: Table, rounds: int) -> None:
    """Add how much a watcher takes from streams, and a watch in steps of the model."""
    core, other = two_cores()
    bare = ModelRunner(read_artefact(artefact(MODEL)), capacity=1, num_threads=1)
    flags = ("--max-chars", str(10**9), "--engine-threads", "1")
    with pinned(core), elman_server(models(MODEL), *flags) as server, pinned(other), load_client() as load:
        for _ in table.rounds(rounds):
            for kind, signal in SIGNALS.items():
                _add_streams(table, kind, signal, server, load)
            with pinned(core):
                stepping = _stepping_seconds(bare)
            for kind, signal in SIGNALS.items():
                before = _engine_seconds(server)
                load(mode="watch", address=server.address, model=MODEL, signal=signal, units=UNITS, chars=WATCHED_CHARS)
                watching = _engine_seconds(server) - before
                name = f"watch of {UNITS} {kind} / stepping, by CPU time"
                table.add(name, "ratio", watching / stepping, at_most=1.3)


def _add_streams(table: Table, kind: str, signal: str, server: Server, load: Load) -> None:
    watch = {"watched_signal": signal, "watched_units": UNITS, "watched_chars": WATCHED_CHARS}
    options = {"address": server.address, "model": MODEL, "streams": STREAMS, "seconds": SECONDS, "pids": server.pids}
    calm, watched = load(**options), load(**options, **watch)
    calm_rate, watched_rate = (got["rate"] / sum(got["cores"]) for got in (calm, watched))
    table.add(f"streams beside a watch of {kind}", "ratio", watched["rate"] / calm["rate"], at_least=0.95)
    table.add(f"streams beside a watch of {kind}, by CPU time", "ratio", watched_rate / calm_rate, at_least=0.95)
    table.add(f"watched {kind} beside streams", "characters/s", watched["watched"] / SECONDS)


def _engine_seconds(server: Server) -> float:
    return sum(map(cpu_seconds, server.pids[1:]))


def _stepping_seconds(model: ModelRunner) -> float:
    """Return the CPU time of the bare model for the text, a step for each character."""
    chars = model.artefact.vocabulary.encode(prompt_of(WATCHED_CHARS), "text")
    model.load_row(0, model.initial.tensors)
    begin = time.process_time()
    for character in chars:
        model.chars[0] = character
        model.step(1)
    return time.process_time() - begin
