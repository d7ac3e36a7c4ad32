"""Does an artefact compute what its source computes, and the same bits in every batch and chunk?

At each of 1,000 random characters every implementation runs one step from the *same* state, the
runtime's. (Left alone, two correct implementations of a chaotic network end up anywhere: how far
they drift apart is reported and decides nothing.)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, cycle

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.runtime import Array, Runtime
from elman_export.exporting.reference import Step
from elman_export.exporting.report import PREFILL, ROWS, Finding, Report
from elman_format import Layout, layouts, operators
from elman_format.layout import BATCHES, LAYOUTS
from elman_format.operators import CUT_SAFE

NUM_STEPS = 1000
CHUNKS = (1, 2, 7, 64)
MAX_LOGITS = 1 << 21  # of a chunk's rows together: tens of MiB for each source, whatever the vocabulary's size
# Relative to the largest value of a tensor, or to 1. One float32 rounding is 6e-8, and a sum of
# 1,000 terms in another order differs by about 2e-6; a wrong weight, gate or bias shows as 1e-2.
TOLERANCE = 1e-5
# Large weights cost float32 more: the equations of a trained GRU 2x512 in float32 are 3e-5 from those in float64. Where
# the sources differ that much among themselves, the artefact may be twice as far from them, up to this.
LOOSEST_TOLERANCE = 1e-4
# Every h is rounded by up to 1/254 of the largest, every weight by 1/128 of its column's: a source in float32 differs
# by a few hundredths, and only another network is found. What int8 computes exactly is a matter of the tests.
QUANTIZED_TOLERANCE = 1e-1
EXACT = (ROWS, PREFILL)
PADDED = (
    "Each row is computed {} times and a batch has a multiple of {} rows: then all batches agree, and the server does "
    "the same."
)
ONE_THREAD = "A server runs it with one thread, because of {}: use more engines to use more cores."


def verify(artefact: Artefact, sources: Mapping[str, Step], num_steps: int = NUM_STEPS) -> Report:
    """Compare an artefact with its sources, and with itself in other batches and in chunks.

    Args:
        artefact: What is to be verified.
        sources: Name to step, each of them what the artefact should compute.
        num_steps: Random characters a row.

    Raises:
        ArtefactError: onnxruntime refuses it.
    """
    runtime = Runtime(artefact)
    # Known cells must agree as they come.
    allowed = layouts(operators(artefact.data)) if artefact.metadata.cell == "other" else LAYOUTS[:1]
    for runtime.layout in allowed:
        comparison = _Comparison(artefact, runtime, sources)
        random = np.random.default_rng(0)
        for length in _chunks(num_steps, max(1, MAX_LOGITS // (max(BATCHES) * artefact.metadata.output_size))):
            comparison.read(random.integers(0, artefact.metadata.vocabulary_size, (length, max(BATCHES))))
            if not comparison.rows_agree and runtime.layout != allowed[-1]:
                break
        else:
            break
    return comparison.report()


class _Comparison:
    """Runs the artefact at every batch, its rows always the last ones of the largest batch."""

    def __init__(self, artefact: Artefact, runtime: Runtime, sources: Mapping[str, Step]) -> None:
        self._artefact = artefact
        self._runtime = runtime
        self._sources = sources
        self._states = {batch: runtime.initial_state(batch) for batch in BATCHES}
        self._own_states = {name: runtime.initial_state(1) for name in sources}
        self._largest: dict[tuple[str, int], float] = {}
        self._drifts = dict.fromkeys(sources, 0.0)
        self._between_sources = 0.0

    @property
    def rows_agree(self) -> bool:
        """Whether every row had the same bits in every batch until now."""
        return all(self._largest[ROWS, batch] == 0 for batch in BATCHES)

    def read(self, chars: NDArray[np.int64]) -> None:
        """Take all batches through [T, 64] characters, comparing every step."""
        widest: list[list[Array]] = []
        for batch in reversed(BATCHES):
            rows, state = chars[:, -batch:], self._states[batch]
            steps = _walk(self._runtime.step, rows, state)
            self._states[batch] = after = steps[-1][1:]
            widest = widest or steps
            for wide, step in zip(widest, steps, strict=True):  # the widest is itself: 0
                self._note(ROWS, batch, _distance([part[-batch:] for part in wide], step))
            if self._runtime.can_read:
                logits = np.stack([step[0] for step in steps])
                self._note(PREFILL, batch, _distance(_flat(self._runtime.read(rows, state)), [logits, *after]))
            befores = [state, *(step[1:] for step in steps[:-1])]
            self._compare_sources(batch, rows.ravel(), _joined(befores), _joined(steps))
        self._drift(chars[:, -1:], steps)

    def report(self) -> Report:
        """Everything found so far, judged by what the artefact says that it is."""
        rounding = min(max(TOLERANCE, 2 * self._between_sources), LOOSEST_TOLERANCE)
        tolerance = QUANTIZED_TOLERANCE if self._artefact.metadata.is_quantized else rounding
        findings = []
        for against, batch in sorted(self._largest, key=lambda key: (key[0] not in EXACT, key)):
            limit = 0.0 if against in EXACT else tolerance
            findings.append(Finding(against, batch, self._largest[against, batch], limit))
        for name, drift in self._drifts.items():
            findings.append(Finding(f"{name}, left alone", 1, drift, None))
        return Report(tuple(findings), tuple(_notes(self._artefact, self._runtime.layout)))

    def _compare_sources(
        self, batch: int, char: NDArray[np.int64], state: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        """All [T * B] steps of a chunk at once: a source's rows must not see one another either."""
        found = {name: _flat(source(char, state)) for name, source in self._sources.items()}
        for name, expected in found.items():
            self._note(name, batch, _distance(expected, outputs, is_relative=True))
        for one, other in combinations(found.values(), 2):
            self._between_sources = _larger(self._between_sources, _distance(one, other, is_relative=True))

    def _drift(self, chars: NDArray[np.int64], steps: Sequence[Sequence[Array]]) -> None:
        for name, source in self._sources.items():
            own = _walk(source, chars, self._own_states[name])
            self._own_states[name] = own[-1][1:]
            for mine, step in zip(own, steps, strict=True):
                distance = _distance(mine, step, is_relative=True)
                self._drifts[name] = _larger(self._drifts[name], distance)

    def _note(self, against: str, batch: int, difference: float) -> None:
        largest = self._largest.get((against, batch), 0.0)
        self._largest[against, batch] = _larger(largest, difference)


def _notes(artefact: Artefact, layout: Layout) -> Iterator[str]:
    if layout != LAYOUTS[0]:
        yield PADDED.format(layout.spacing, layout.multiple)
    if unsafe := operators(artefact.data) - CUT_SAFE:
        yield ONE_THREAD.format(", ".join(sorted(unsafe)))


def _chunks(num_steps: int, longest: int) -> Iterator[int]:
    for chunk in cycle(CHUNKS):
        if num_steps <= 0:
            return
        length = min(chunk, longest, num_steps)
        yield length
        num_steps -= length


def _flat(outputs: tuple[Array, list[Array]]) -> list[Array]:
    logits, state = outputs
    return [logits, *state]


def _joined(steps: Sequence[Sequence[Array]]) -> list[Array]:
    """T lists of arrays [B, ...] as one list of arrays [T * B, ...]."""
    return [np.concatenate(parts) for parts in zip(*steps, strict=True)]


def _walk(step: Step, chars: NDArray[np.int64], state: Sequence[Array]) -> list[list[Array]]:
    """Logits and next states after each of [T, B] characters."""
    outputs = []
    for char in chars:
        logits, state = step(char, state)
        outputs.append([logits, *state])
    return outputs


@np.errstate(invalid="ignore")  # infinity minus infinity is the NaN that is looked for
def _distance(actual: Sequence[Array], expected: Sequence[Array], *, is_relative: bool = False) -> float:
    """The largest difference of any element; of its tensor's largest value if relative."""
    if [part.shape for part in actual] != [part.shape for part in expected]:
        return math.inf
    largest = 0.0
    for a, b in zip(actual, expected, strict=True):
        scale = max(1.0, np.abs(b).max()) if is_relative else 1.0
        largest = _larger(largest, np.abs(a - b).max() / scale)
    return largest


def _larger(a: float, b: float) -> float:
    return float(np.maximum(a, b))  # keeps a NaN, which max() may lose
