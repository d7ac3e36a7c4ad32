"""Sampling: from logits to sampled characters, for all rows of a batch at once.

The order is fixed: logit_bias with allowed and banned characters, repetition_penalty, temperature, top_k,
top_p, min_p, then one sample from the rest. Every operation is elementwise or runs along one row, so that a row's
character does not depend on its neighbours. Greedy rows (temperature 0) keep the likeliest alone.

Every machine samples the same from the same logits. The weights are those of `domain.exact`, added one by one. NumPy's
exponential is several times faster and differs in the last bits, so it is tried first, and believed if every comparison
would have the same result with any weights that are within `_SLACK` of these. If one might not, in about one of 10^8
samples, all are sampled again by the exact ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from elman_server.domain import exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from elman_server.domain.sampling import Sampling

    Floats = NDArray[np.float64]
    Ids = NDArray[np.int64]
    Logits = NDArray[np.float32]

_WORDS_PER_COUNTER: Final = 4  # Philox 4x64 gives four words a counter
_ID_BITS: Final = np.int64((1 << 29) - 1)
_BANNED: Final = 1e39  # stands for an infinite distance: above every float32
# Relative; the errors of NumPy's weights and their sums are below 1e-11 up to 10^5 characters.
_SLACK: Final = 1e-9
_NEAR: Final = np.array([[1 - _SLACK], [1 + _SLACK]])
_EXACT: Final = np.ones((1, 1))
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
        self._min_p = np.zeros(capacity)
        self._kinds = np.zeros((capacity, 4), np.bool_)  # greedy, filters, has min_p, has bias
        # Temporaries. A distance, as a double, has 29 low bits that a float32 does not fill; the id rides there.
        self._ids = np.arange(vocabulary_size, dtype=np.int64)
        self._top, self._distance = np.zeros((capacity, 1), np.float32), np.zeros(shape, np.float32)
        self._keys, self._mass = np.zeros(shape, np.int64), np.zeros(shape)
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
        at = _chosen(plan, uniform, np.exp, _NEAR)
        if at is None:
            at = _chosen(plan, uniform, exact.exp, _EXACT)
        assert at is not None
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
            has_top_p=bool((self._top_p[:size] < 1).any()),
            has_min_p=bool(kinds[:, 2].any()),
            has_bias=bool(kinds[:, 3].any()),
            top=self._top[:size],
            distance=self._distance[:size],
            keys=keys,
            as_double=keys.view(np.float64),
            mass=mass,
            flat_keys=keys.reshape(-1),
            flat_mass=mass.reshape(-1),
            first=first,
            last=self._top_k[:size] - 1,
            at_top_k=first + self._top_k[:size] - 1,
            whole=np.flatnonzero(self._top_p[:size] == 1),
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
    has_top_p: bool
    has_min_p: bool
    has_bias: bool
    top: Logits  # [B, 1]
    distance: Logits  # [B, V]
    keys: NDArray[np.int64]  # [B, V]; the same memory as `as_double`
    as_double: Floats
    mass: Floats  # [B, V]
    flat_keys: NDArray[np.int64]
    flat_mass: Floats
    first: NDArray[np.int64]  # [B], where each row begins in the flat arrays
    last: NDArray[np.int64]  # [B], the last of the top k
    at_top_k: NDArray[np.int64]  # [B], where that stands in them
    whole: NDArray[np.int64]  # the rows without top_p
    factor: Floats  # [B, 1]
    top_p: Floats  # [B]
    min_p: Floats  # [B]


def _chosen(plan: _Plan, uniform: Floats, exp: Callable[..., Floats], bounds: Floats) -> Ids | None:
    """Return where in the flat arrays each row's sample is [B]; None if not all of the bounds lead to the same.

    `bounds` are [N, 1], factors of whatever weights and sums are compared with.
    """
    mass = plan.mass
    # The id moves a weight by less than V 2^-52 of its exponent.
    np.multiply(plan.as_double, plan.factor, out=mass)
    exp(mass, out=mass)
    if plan.has_bias:
        mass[plan.as_double >= _BANNED] = 0
    last = plan.last
    if plan.has_min_p:
        likely = np.count_nonzero(mass >= (plan.min_p * bounds)[:, :, None], axis=2)
        if not _are_equal(likely):
            return None
        last = np.minimum(last, likely[0] - 1)
    # Adds along the row in order; a BLAS product would not promise that for every batch.
    np.add.accumulate(mass, axis=1, out=mass)
    if plan.has_top_p:
        enough = plan.flat_mass.take(plan.at_top_k)  # top_p is a share of what top_k left
        enough *= plan.top_p
        past = (mass >= (enough * bounds)[:, :, None]).argmax(axis=2)
        if plan.whole.size:  # nothing is between their bounds and the whole
            past[:, plan.whole] = plan.last[plan.whole]
        if not _are_equal(past):
            return None
        last = np.minimum(last, past[0])
    goal = plan.flat_mass.take(plan.first + last)
    goal *= uniform  # below the total in double precision too, for the total is at least 1
    at = (mass > (goal * bounds)[:, :, None]).argmax(axis=2)
    return at[0] + plan.first if _are_equal(at) else None


def _are_equal(found: Ids) -> bool:
    """Return whether all of [N, B] are those of the first bound."""
    return len(found) == 1 or found[0].tobytes() == found[1].tobytes()
