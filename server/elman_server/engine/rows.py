"""Rows: what the sampler knows of each row of the batch, and the characters drawn since the last flush."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from elman_server import sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elman_server.scheduler import Stream

FLUSH_STEPS: Final = 256  # the most steps between two flushes

_ROW: Final = np.dtype([
    ("temperature", np.float64),
    ("top_k", np.int64),
    ("top_p", np.float64),
    ("min_p", np.float64),
    ("penalty", np.float64),
    ("filters", np.bool_),  # whether the row has to be sorted
    ("biased", np.bool_),
    ("position", np.int64),  # of the next character to draw
    ("left", np.int64),  # characters until the stream ends or pauses
    ("unsent", np.int64),  # characters in `drawn`
])  # fmt: skip


class Rows:
    """Draws for the first rows of the batch, all at once."""

    def __init__(self, capacity: int, vocabulary_size: int) -> None:
        self._rows = np.zeros(capacity, _ROW)
        self._drawn = np.zeros((capacity, FLUSH_STEPS), np.int64)
        self._uniform = np.zeros((capacity, sampling.UNIFORMS_PER_BLOCK))
        self._seeds = [0] * capacity
        self._bias = np.zeros((capacity, vocabulary_size), np.float32)
        self._seen = np.zeros((capacity, vocabulary_size), np.int64)  # counts in the repetition window
        self._windows: list[deque[int] | None] = [None] * capacity

    def load(self, row: int, stream: Stream) -> None:
        """Set a row up for a stream that joins."""
        job, parameters = stream.job, stream.job.sampling
        position = job.position + len(job.prompt) + stream.num_drawn
        self._rows[row] = (
            parameters.temperature,
            parameters.top_k,
            parameters.top_p,
            parameters.min_p,
            parameters.repetition_penalty,
            parameters.filters,
            bool(parameters.bias),
            position,
            stream.num_left,
            0,
        )
        self._seeds[row] = parameters.seed
        self._uniform[row] = sampling.uniforms(parameters.seed, position // sampling.UNIFORMS_PER_BLOCK)
        self._bias[row] = 0
        for character, bias in parameters.bias:
            self._bias[row, character] = bias
        self._windows[row] = None
        if parameters.repetition_penalty != 1:
            window = deque(stream.recent, maxlen=parameters.repetition_window)
            self._windows[row] = window
            self._seen[row] = np.bincount(window, minlength=self._seen.shape[1])

    def move(self, source: int, target: int) -> None:
        """Copy a row over another."""
        for array in (self._rows, self._drawn, self._uniform, self._bias, self._seen):
            array[target] = array[source]
        self._seeds[target] = self._seeds[source]
        self._windows[target] = self._windows[source]

    def draw(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """Draw one character a row and take it down; logits [B, V] float32, result [B] int64."""
        size = len(logits)
        rows = self._rows[:size]
        if rows["biased"].any():
            logits = logits + self._bias[:size]
        penalty = rows["penalty"]
        if (penalty != 1).any():
            logits = sampling.penalise(logits, self._seen[:size] > 0, penalty[:, None])
        offset = rows["position"] % sampling.UNIFORMS_PER_BLOCK
        drawn = sampling.draw(logits, rows, self._uniform[np.arange(size), offset])
        self._take_down(drawn)
        return drawn

    def _take_down(self, drawn: NDArray[np.int64]) -> None:
        rows = self._rows[: len(drawn)]
        self._drawn[np.arange(len(drawn)), rows["unsent"]] = drawn
        rows["unsent"] += 1
        rows["left"] -= 1
        rows["position"] += 1
        for row in np.flatnonzero(rows["position"] % sampling.UNIFORMS_PER_BLOCK == 0).tolist():
            self._uniform[row] = sampling.uniforms(
                self._seeds[row], int(rows["position"][row]) // sampling.UNIFORMS_PER_BLOCK
            )
        for row in np.flatnonzero(rows["penalty"] != 1).tolist():
            self._slide(row, int(drawn[row]))

    def _slide(self, row: int, character: int) -> None:
        window = self._windows[row]
        assert window is not None
        if len(window) == window.maxlen:
            self._seen[row, window[0]] -= 1
        window.append(character)
        self._seen[row, character] += 1

    def recent(self, row: int) -> list[int]:
        """Return the characters in a row's repetition window, for when it joins again."""
        return list(self._windows[row] or ())

    def num_unsent(self, row: int) -> int:
        """Return how many characters `take` would return."""
        return int(self._rows["unsent"][row])

    def take(self, row: int) -> list[int]:
        """Return and forget the characters of a row that were not sent yet."""
        unsent = int(self._rows["unsent"][row])
        self._rows["unsent"][row] = 0
        taken: list[int] = self._drawn[row, :unsent].tolist()
        return taken

    def allow(self, row: int, num_left: int) -> None:
        """Set how many characters a row may draw until it ends or pauses."""
        self._rows["left"][row] = num_left

    def at_end(self, size: int) -> list[int]:
        """Return the rows that may draw no more."""
        ended: list[int] = np.flatnonzero(self._rows["left"][:size] == 0).tolist()
        return ended

    def is_full(self, size: int) -> bool:
        """Whether some row has no room for another character until it is flushed."""
        return bool((self._rows["unsent"][:size] == FLUSH_STEPS).any())
