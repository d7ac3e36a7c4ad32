"""A prompt by the prefill graph against one step for each character: speed, equal bits, and four prompts at once.

The graph is measured in this process, as the engine calls it; four prompts through the server, too.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.artefacts import artefact, models
from benchmarks.processes import elman_server, load_client
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.models.artefact import read_artefact

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.measure import Table

POSITIONS: Final = 64  # of one chunk, as the scheduler cuts them
SECONDS: Final = 0.15  # of repeating one thing: once may take a millisecond, and may be interrupted for four
BARS: Final = {"a": 2.0, "b": None, "c": 1.25}
PROMPTS: Final = 4
PROMPT_CHARS: Final = 2048


def run(table: Table, rounds: int) -> None:
    """Add how many times faster the prefill graph is, alone and for four prompts together."""
    loaded = {name: ModelRunner(read_artefact(artefact(name)), capacity=64, num_threads=1) for name in BARS}
    for name, model in loaded.items():
        _check_equal(model, name)
    with load_client() as load, elman_server(models(*BARS)) as server:
        for _ in table.rounds(rounds):
            for name, model in loaded.items():
                stepping = _seconds_stepping(model)
                alone, four = _seconds_reading(model, 1), _seconds_reading(model, PROMPTS)
                gain = PROMPTS * alone / four
                table.add(f"prefill {name}", "characters/s", POSITIONS / alone)
                table.add(f"prefill {name} / stepping", "ratio", stepping / alone, at_least=BARS[name])
                table.add(f"prefill {name}, four prompts / one after another", "ratio", gain, at_least=1)
                options = {"mode": "prompts", "model": name, "prompts": PROMPTS, "chars": PROMPT_CHARS}
                got = load(address=server.address, **options)
                gain = got["one_by_one"] / got["at_once"]
                table.add(f"prefill {name}, four prompts / one after another, server", "ratio", gain, at_least=1)


def _chars(batch: int) -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, 65, (POSITIONS, batch))


def _check_equal(model: ModelRunner, name: str) -> None:
    """Check that both ways give the same bits: a benchmark of two different things would mean nothing."""
    chars = _chars(1)
    logits, states = model.read(chars, model.rows([model.initial]))
    model.load_row(0, model.initial.tensors)
    for position, column in enumerate(chars):
        model.chars[0] = column[0]
        assert np.array_equal(model.step(1)[0], logits[position, 0]), name
    assert model.save_row(0) == tuple(state[0].tobytes() for state in states), name


def _seconds_stepping(model: ModelRunner) -> float:
    """Return the seconds of one chunk, step by step."""
    model.load_row(0, model.initial.tensors)
    chars = _chars(1)[:, 0].tolist()

    def step_through() -> None:
        for character in chars:
            model.chars[0] = character
            model.step(1)

    return _usual(step_through)


def _seconds_reading(model: ModelRunner, batch: int) -> float:
    """Return the seconds of one chunk of `batch` prompts by the graph."""
    states, chars = model.rows([model.initial] * batch), _chars(batch)
    return _usual(lambda: model.read(chars, states))


def _usual(work: Callable[[], object]) -> float:
    """Repeat something; return the median of its seconds."""
    seconds: list[float] = []
    while sum(seconds) < SECONDS:
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
