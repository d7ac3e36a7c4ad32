"""The speed of an artefact without a server: the step and the prefill graph, one thread."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.runtime import Runtime

SECONDS = 1.0  # of measurement for each figure
LENGTH = 64  # characters of a row in one measurement; a server's prefill reads as many at a time
WIDE = 64  # rows


@dataclass(frozen=True, slots=True)
class Speed:
    """Characters a second of one thread, medians.

    Attributes:
        step: One row, stepping.
        wide_step: 64 rows together, stepping.
        prefill: One row by the prefill graph, 64 characters at a time; None without such a graph.
    """

    step: float
    wide_step: float
    prefill: float | None


def measure_speed(artefact: Artefact) -> Speed:
    """Run an artefact for three seconds.

    Raises:
        ArtefactError: onnxruntime refuses it.
    """
    runtime = Runtime(artefact, num_threads=1)
    chars = np.random.default_rng(0).integers(0, artefact.metadata.vocabulary_size, (LENGTH, WIDE))

    def stepping(num_rows: int) -> Callable[[], object]:
        columns = [np.ascontiguousarray(char) for char in chars[:, :num_rows]]
        start = runtime.initial_state(num_rows)

        def run() -> None:
            state = start
            for char in columns:
                _, state = runtime.step(char, state)

        return run

    def prefill() -> None:
        runtime.read(chars[:, :1], runtime.initial_state(1))

    return Speed(
        step=_rate(stepping(1), LENGTH),
        wide_step=_rate(stepping(WIDE), LENGTH * WIDE),
        prefill=_rate(prefill, LENGTH) if runtime.can_read else None,
    )


def _rate(run: Callable[[], object], num_characters: int) -> float:
    """Characters a second; the first run warms up and is not counted."""
    run()
    durations: list[float] = []
    while sum(durations) < SECONDS:
        start = time.perf_counter()
        run()
        durations.append(time.perf_counter() - start)
    return num_characters / statistics.median(durations)
