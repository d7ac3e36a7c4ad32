"""Sampling: from logits to sampled characters, for all rows of a batch at once.

The order is fixed: logit_bias with allowed and banned characters, repetition_penalty, temperature, top_k,
top_p, min_p, then one sample from the rest. Every operation is elementwise or runs along one row, so that a row's
character does not depend on its neighbours. Greedy rows (temperature 0) keep the likeliest alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elman_server.domain.sampling import Sampling

    Floats = NDArray[np.float64]
    Logits = NDArray[np.float32]

_WORDS_PER_COUNTER: Final = 4  # Philox 4x64 gives four words a counter
_ID_BITS: Final = np.int64((1 << 29) - 1)
_BANNED: Final = 1e39  # stands for an infinite distance: above every float32
COLDEST: Final = 1e269  # of inverse temperatures: times any distance it is still a double


def uniforms(seed: int, position: int) -> np.random.Generator:
    """Return the uniforms on [0, 1) of a seed, from a position on: each call of its `random` gives the next ones.

    The uniform of a position is the top 53 bits of its word of Philox 4x64-10 (Salmon et al., SC11) with the key
    (seed, 0) and the counter position // 4 + 1 (NumPy counts before it generates): a function of (seed, position)
    alone, whatever was sampled before.
    """
    counter, word = divmod(position, _WORDS_PER_COUNTER)
    words = np.random.Philox(counter=counter, key=seed)
    words.random_raw(word, output=False)
    return np.random.Generator(words)


def penalize(logits: Logits, seen: NDArray[np.bool_], penalty: Floats) -> Logits:
    """Apply the repetition penalty (Keskar et al. 2019, arXiv 1909.05858, 4.1; both signs as usual since).

    Args:
        logits: [B, V] float32.
        seen: [B, V], the characters in each row's window.
        penalty: [B, 1].
    """
    weakened = np.where(logits > 0, logits / penalty, logits * penalty).astype(np.float32)
    return np.where(seen, weakened, logits)


class Sampler:
    """Samples for the first rows of a batch, all at once; every array is allocated once.

    The characters of a row that filters are put in falling order of their logits, the lower id first among equals;
    then all filters keep a prefix, which one number per row describes: its last index. Rows that do not filter stay in
    the order of ids. The sample is the first character whose cumulative weight exceeds the uniform's share of all.
    """

    def __init__(self, capacity: int, vocabulary_size: int) -> None:
        shape = (capacity, vocabulary_size)
        self._size = vocabulary_size
        self._factor = np.full((capacity, 1), -1.0)  # minus the inverse temperature
        self._top_k = np.zeros(capacity, np.int64)  # 1 … V
        self._top_p = np.ones(capacity)
        self._min_p = np.zeros((capacity, 1))
        self._kinds = np.zeros((capacity, 4), np.bool_)  # greedy, filters, has min_p, has bias
        # Temporaries. A distance, as a double, has 29 low bits that a float32 does not fill; the id rides there.
        self._ids = np.arange(vocabulary_size, dtype=np.int64)
        self._top, self._distance = np.zeros((capacity, 1), np.float32), np.zeros(shape, np.float32)
        self._keys, self._mass = np.zeros(shape, np.int64), np.zeros(shape)
        self._is_past = np.zeros(shape, np.bool_)
        self._plan: _Plan | None = None

    def load(self, row: int, parameters: Sampling) -> None:
        """Set a row's parameters."""
        greedy = parameters.temperature == 0
        self._factor[row] = -1.0 if greedy else -min(1 / parameters.temperature, COLDEST)
        self._top_k[row] = 1 if greedy else min(parameters.top_k or self._size, self._size)
        self._top_p[row] = parameters.top_p
        self._min_p[row] = 0.0 if greedy else parameters.min_p
        self._kinds[row] = greedy, greedy or parameters.filters, parameters.min_p > 0, bool(parameters.bias)
        self._plan = None

    def move(self, source: int, target: int) -> None:
        """Copy a row's parameters over another's."""
        for array in (self._factor, self._top_k, self._top_p, self._min_p, self._kinds):
            array[target] = array[source]
        self._plan = None

    def sample(self, logits: Logits, uniform: Floats) -> NDArray[np.int64]:
        """Sample one character per row.

        Args:
            logits: [B, V] float32, bias and penalty applied; finite, or -inf in rows whose parameters have a bias.
            uniform: [B] float64 on [0, 1).

        Returns:
            [B] int64, the sampled ids.
        """
        if (plan := self._plan) is None or plan.size != len(logits):
            plan = self._plan = self._planned(len(logits))
        if plan.all_greedy:
            sampled: NDArray[np.int64] = logits.argmax(axis=1)
            return sampled
        mass = plan.mass
        # How far below the row's largest: never negative, so that its bits as an integer are in its own order.
        np.maximum.reduce(logits, axis=1, out=plan.top, keepdims=True)
        np.subtract(plan.top, logits, out=plan.distance)
        np.copyto(plan.as_double, plan.distance)
        if plan.has_bias:
            np.minimum(plan.as_double, _BANNED, out=plan.as_double)
        np.bitwise_or(plan.keys, self._ids, out=plan.keys)
        if plan.all_sorted:
            plan.keys.sort(axis=1)
        elif plan.sorted_rows.size:
            plan.keys[plan.sorted_rows] = np.sort(plan.keys[plan.sorted_rows], axis=1)
        # The id moves a weight by less than V 2^-52 of its exponent.
        np.multiply(plan.as_double, plan.factor, out=mass)
        np.exp(mass, out=mass)
        if plan.has_bias:
            mass[plan.as_double >= _BANNED] = 0
        num_likely = np.count_nonzero(mass >= plan.min_p, axis=1) if plan.has_min_p else None
        # Adds along the row in order; a BLAS product would not promise that for every batch.
        np.add.accumulate(mass, axis=1, out=mass)
        enough = plan.flat_mass.take(plan.at_top_k)  # top_p is a share of what top_k left
        enough *= plan.top_p
        np.greater_equal(mass, enough[:, None], out=plan.is_past)
        last = plan.is_past.argmax(axis=1)
        if num_likely is not None:
            np.minimum(last, num_likely - 1, out=last)
        last += plan.first
        goal = plan.flat_mass.take(last)
        goal *= uniform  # below the total in double precision too, for the total is at least 1
        np.greater(mass, goal[:, None], out=plan.is_past)
        at = plan.is_past.argmax(axis=1)
        at += plan.first
        ids: NDArray[np.int64] = plan.flat_keys.take(at) & _ID_BITS
        return ids

    def _planned(self, size: int) -> _Plan:
        """Return what stays the same until a row changes: the arrays of the first rows, and which kinds they are."""
        keys, mass, kinds = self._keys[:size], self._mass[:size], self._kinds[:size]
        first = np.arange(size) * self._size
        return _Plan(
            size=size,
            all_greedy=bool(kinds[:, 0].all()),
            all_sorted=bool(kinds[:, 1].all()),
            sorted_rows=np.flatnonzero(kinds[:, 1]),
            has_min_p=bool(kinds[:, 2].any()),
            has_bias=bool(kinds[:, 3].any()),
            top=self._top[:size],
            distance=self._distance[:size],
            keys=keys,
            as_double=keys.view(np.float64),
            mass=mass,
            is_past=self._is_past[:size],
            flat_keys=keys.reshape(-1),
            flat_mass=mass.reshape(-1),
            first=first,
            at_top_k=first + self._top_k[:size] - 1,
            factor=self._factor[:size],
            top_p=self._top_p[:size],
            min_p=self._min_p[:size],
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The sampler's arrays, cut to a batch of `size` rows, and what these rows have in common."""

    size: int
    all_greedy: bool
    all_sorted: bool
    sorted_rows: NDArray[np.int64]
    has_min_p: bool
    has_bias: bool
    top: Logits  # [B, 1]
    distance: Logits  # [B, V]
    keys: NDArray[np.int64]  # [B, V]; the same memory as `as_double`
    as_double: Floats
    mass: Floats  # [B, V]
    is_past: NDArray[np.bool_]  # [B, V]
    flat_keys: NDArray[np.int64]
    flat_mass: Floats
    first: NDArray[np.int64]  # [B], where each row begins in the flat arrays
    at_top_k: NDArray[np.int64]  # [B], where the last of the top k stands in them
    factor: Floats  # [B, 1]
    top_p: Floats  # [B]
    min_p: Floats  # [B, 1]
