"""Sampling: how characters are sampled, in ids, and the model's own distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elman_server.domain import exact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a turn's characters are sampled, validated and in ids. See `elman.v1.Sampling` for the ranges.

    Attributes:
        bias: added to the logits: pairs of id and nats; -inf bans.
        repetition_penalty: 1 is none.
        repetition_window: how many last characters it looks at.
        temperature: 0 selects the likeliest.
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
        """Whether a filter may remove characters, so that the row must be sorted."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)


def log_softmax(logits: Logits | Floats) -> Floats:
    """Return log-probabilities in nats of the model's own distribution: [B, V] float64; equal on every machine."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    normalizer: Floats = exact.log(np.add.accumulate(exact.exp(shifted), axis=-1)[..., -1:])
    return shifted - normalizer
