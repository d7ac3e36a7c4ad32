"""Sampling: from logits to drawn characters, for all rows of a batch at once.

The order is fixed: logit_bias with allowed and banned characters, repetition_penalty, temperature, top_k,
top_p, min_p, then one draw from what is left. Every operation is elementwise or runs along one row, so that a row's
character does not depend on its neighbours. Greedy rows (temperature 0) stop after the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Logits = NDArray[np.float32]

UNIFORMS_PER_BLOCK: Final = 256
_WORDS_PER_COUNTER: Final = 4  # Philox 4x64 gives four words a counter


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a turn's characters are drawn, validated and in ids. See `elman.v1.Sampling` for the ranges.

    Attributes:
        bias: added to the logits: pairs of id and nats; -inf bans.
        repetition_penalty: 1 is none.
        repetition_window: how many last characters it looks at.
        temperature: 0 takes the likeliest.
        top_k: 0 keeps all.
        top_p: 1 keeps all.
        min_p: 0 keeps all.
        seed: unsigned 64 bits.
    """

    seed: int
    bias: tuple[tuple[int, float], ...] = ()
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def filters(self) -> bool:
        """Whether any character may be cut off, so that the row has to be sorted."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)


def uniforms(seed: int, block: int) -> Floats:
    """Return the draws of positions 256·block … 256·block + 255 of a seed, uniform on [0, 1).

    The draw of a position is the top 53 bits of its word of Philox 4x64-10 (Salmon et al., SC11) with the key
    (seed, 0) and the counter position // 4 + 1 (NumPy counts before it draws): a function of (seed, position)
    alone, whatever was drawn before.
    """
    counter = block * (UNIFORMS_PER_BLOCK // _WORDS_PER_COUNTER)
    words = np.random.Philox(counter=counter, key=seed).random_raw(UNIFORMS_PER_BLOCK)
    draws: Floats = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return draws


def penalise(logits: Logits, seen: NDArray[np.bool_], penalty: Floats) -> Logits:
    """Apply the repetition penalty (Keskar et al. 2019, arXiv 1909.05858, 4.1; both signs as usual since).

    Args:
        logits: [B, V] float32.
        seen: [B, V], the characters in each row's window.
        penalty: [B, 1].
    """
    weakened = np.where(logits > 0, logits / penalty, logits * penalty).astype(np.float32)
    return np.where(seen, weakened, logits)


def draw(logits: Logits, rows: NDArray[np.void], uniform: Floats) -> NDArray[np.int64]:
    """Draw one character a row.

    Args:
        logits: [B, V] float32, finite or -inf, bias and penalty applied.
        rows: [B] structured, with the fields `temperature`, `filters`, `top_k`, `top_p`, `min_p`.
        uniform: [B] float64 on [0, 1).

    Returns:
        [B] int64, the drawn ids.
    """
    temperature = rows["temperature"]
    greedy = temperature == 0
    likeliest: NDArray[np.int64] = logits.argmax(axis=1)  # the first of equals
    if greedy.all():
        return likeliest
    # Shifted first and in double precision: no temperature above 0 can then make NaN of the largest logit.
    scaled = logits.astype(np.float64)
    scaled -= scaled.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a tiny temperature: all but the largest go to -inf, as they should
        scaled /= np.where(greedy, 1.0, temperature)[:, None]
    weights = np.exp(scaled)  # [B, V]
    if rows["filters"].any():
        weights *= _kept(scaled, rows)
    # cumsum adds along the row in order; a BLAS product would not promise that for every batch.
    cumulative = weights.cumsum(axis=1)
    total = cumulative[:, -1:]
    drawn = (cumulative <= uniform[:, None] * total).sum(axis=1)
    drawn = np.minimum(drawn, (cumulative < total).sum(axis=1))  # u * total may round up to total
    return np.where(greedy, likeliest, drawn)


def _kept(scaled: Floats, rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Return which characters pass top_k, top_p and min_p: [B, V].

    Each filter keeps the first so many of the characters in falling order, the lower id first among equals;
    so all three together are one number a row.
    """
    falling = -np.sort(-scaled, axis=1)
    mass = np.exp(falling).cumsum(axis=1)
    size = scaled.shape[1]
    num_kept = np.where(rows["top_k"] > 0, np.minimum(rows["top_k"], size), size)
    of_top_k = np.take_along_axis(mass, num_kept[:, None] - 1, axis=1)  # top_p is a share of what top_k left
    enough = (mass < rows["top_p"][:, None] * of_top_k).sum(axis=1) + 1
    num_kept = np.where(rows["top_p"] < 1, np.minimum(num_kept, enough), num_kept)
    with np.errstate(divide="ignore"):  # log(0) = -inf keeps all
        num_kept = np.minimum(num_kept, (falling >= np.log(rows["min_p"])[:, None]).sum(axis=1))
    last = np.take_along_axis(falling, num_kept[:, None] - 1, axis=1)
    above, equal = scaled > last, scaled == last
    room = num_kept[:, None] - above.sum(axis=1, keepdims=True)
    kept: NDArray[np.bool_] = above | (equal & (equal.cumsum(axis=1) <= room))
    return kept


def log_softmax(logits: Logits) -> Floats:
    """Return log-probabilities in nats of the model's own distribution: [B, V] float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    normaliser: Floats = np.log(np.exp(shifted).cumsum(axis=-1)[..., -1:])
    return shifted - normaliser
