"""The batch: what the sampler needs of each row, and the characters sampled since the last flush."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from elman_server.engine.core import sampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elman_server.engine.core.scheduler import Stream

FLUSH_STEPS: Final = 1024  # the most steps between two flushes
UNIFORM_STEPS: Final = 256  # of which the uniforms of all rows are generated ahead
_NEVER: Final = np.iinfo(np.int64).max


class Batch:
    """Samples for the first rows of the batch, all at once.

    Work that a row needs now and then is scheduled for the step at which it is due, so that most steps look at no
    single row.
    """

    def __init__(self, capacity: int, vocabulary_size: int) -> None:
        self._sampler = sampler.Sampler(capacity, vocabulary_size)
        self._step = 0  # steps run so far
        self._end = np.zeros(capacity, np.int64)  # the step after which a row may sample no more
        self._due = 0  # not later than the first of them
        self._sampled = np.zeros((FLUSH_STEPS, capacity), np.int64)
        self._num_sampled = 0  # of the steps of `_sampled`: since the last flush of all
        self._first_unsent = [0] * capacity  # the first of these steps that a row did not send
        self._uniforms = np.zeros((UNIFORM_STEPS, capacity))
        self._next_uniform = UNIFORM_STEPS  # of the steps of `_uniforms`
        self._sources: list[np.random.Generator] = [sampler.uniforms(0, 0)] * capacity  # of a row's later uniforms
        self._bias = np.zeros((capacity, vocabulary_size), np.float32)
        self._biased = np.zeros(capacity, np.bool_)
        self._penalty = np.ones((capacity, 1))
        self._seen = np.zeros((capacity, vocabulary_size), np.int64)  # counts in the repetition window
        self._windows: list[deque[int] | None] = [None] * capacity
        self._penalised: list[int] | None = None  # the rows with a penalty; None: look
        self._any_biased = False
        self._planned_size = 0

    def load(self, row: int, stream: Stream) -> None:
        """Set a row up for a stream that joins."""
        job, parameters = stream.job, stream.job.sampling
        num_unread = len(stream.unread)  # as many steps read on, and what they sample is not used
        position = job.position + len(job.prompt) + stream.num_sampled - num_unread
        self._sampler.load(row, parameters)
        self._first_unsent[row] = self._num_sampled + num_unread
        self._sources[row] = source = sampler.uniforms(parameters.seed, position)
        self._uniforms[self._next_uniform :, row] = source.random(UNIFORM_STEPS - self._next_uniform)
        self.allow(row, stream.num_left + num_unread)
        self._biased[row] = bool(parameters.bias)
        if parameters.bias:
            self._bias[row] = 0
            for character, bias in parameters.bias:
                self._bias[row, character] = bias
        self._penalty[row] = parameters.repetition_penalty
        self._windows[row] = None
        if parameters.repetition_penalty != 1:
            window = deque(stream.recent, maxlen=parameters.repetition_window)
            self._windows[row] = window
            self._seen[row] = np.bincount(window, minlength=self._seen.shape[1])
        self._penalised = None

    def move(self, source: int, target: int) -> None:
        """Copy a row over another."""
        self._sampler.move(source, target)
        for array in (self._end, self._bias, self._biased, self._penalty, self._seen):
            array[target] = array[source]
        self._sampled[: self._num_sampled, target] = self._sampled[: self._num_sampled, source]
        self._uniforms[self._next_uniform :, target] = self._uniforms[self._next_uniform :, source]
        self._first_unsent[target] = self._first_unsent[source]
        self._sources[target] = self._sources[source]
        self._windows[target] = self._windows[source]
        self._penalised = None

    def sample(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """Sample one character per row and record it; logits [B, V] float32, result [B] int64."""
        size = len(logits)
        if self._penalised is None or size != self._planned_size:
            self._planned_size = size
            self._penalised = np.flatnonzero(self._penalty[:size, 0] != 1).tolist()
            self._any_biased = bool(self._biased[:size].any())
        if self._any_biased:
            logits = np.where(self._biased[:size, None], logits + self._bias[:size], logits)
        if self._penalised:
            logits = sampler.penalize(logits, self._seen[:size] > 0, self._penalty[:size])
        if self._next_uniform == UNIFORM_STEPS:
            for row in range(size):
                self._uniforms[:, row] = self._sources[row].random(UNIFORM_STEPS)
            self._next_uniform = 0
        sampled = self._sampler.sample(logits, self._uniforms[self._next_uniform, :size])
        self._next_uniform += 1
        self._sampled[self._num_sampled, :size] = sampled
        self._num_sampled += 1
        self._step += 1
        for row in self._penalised:
            self._slide(row, int(sampled[row]))
        return sampled

    def _slide(self, row: int, character: int) -> None:
        window = self._windows[row]
        assert window is not None
        if len(window) == window.maxlen:
            self._seen[row, window[0]] -= 1
        window.append(character)
        self._seen[row, character] += 1

    def recent(self, row: int) -> list[int]:
        """Return the characters in a row's repetition window, for its next join."""
        return list(self._windows[row] or ())

    def num_unsent(self, row: int) -> int:
        """Return how many characters `take` would return; below 0 if it still reads."""
        return self._num_sampled - self._first_unsent[row]

    def take(self, row: int) -> list[int]:
        """Remove and return the characters of a row that were not sent yet."""
        taken: list[int] = self._sampled[self._first_unsent[row] : self._num_sampled, row].tolist()
        self._first_unsent[row] = max(self._first_unsent[row], self._num_sampled)
        return taken

    def take_all(self, size: int) -> list[list[int]]:
        """Remove and return the characters of the first rows that were not sent yet, row by row."""
        columns: list[list[int]] = self._sampled[: self._num_sampled, :size].T.tolist()
        firsts = self._first_unsent
        self._first_unsent = [max(0, first - self._num_sampled) for first in firsts]
        self._num_sampled = 0
        return [column[first:] if first else column for column, first in zip(columns, firsts, strict=False)]

    def allow(self, row: int, num_left: int) -> None:
        """Set how many characters a row may sample until it ends or pauses."""
        self._end[row] = self._step + num_left
        self._due = min(self._due, self._step + num_left)

    def at_end(self, size: int) -> list[int]:
        """Return the rows that may sample no more."""
        if self._step < self._due:
            return []
        ends = self._end[:size]
        ended: list[int] = np.flatnonzero(ends == self._step).tolist()
        self._due = int(ends[ends > self._step].min(initial=_NEVER))
        return ended

    @property
    def num_steps(self) -> int:
        """How many steps were run since the last flush of all; FLUSH_STEPS at most."""
        return self._num_sampled
