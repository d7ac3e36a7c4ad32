"""The self-check of a portable model: its steps and the sampler, against what its artefact says."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from elman_format import self_check
from elman_server.domain.sampling import Sampling, log_softmax
from elman_server.engine.core.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Ids = NDArray[np.int64]
    Logits = NDArray[np.float32]
    States = list[NDArray[np.float32]]


def digest(vocabulary_size: int, step: Callable[[Ids, States], tuple[Logits, States]], states: States) -> str:
    """Return the digest that this machine computes.

    Args:
        vocabulary_size: of the model.
        step: from characters [B] and states to logits [B, V] and the next states.
        states: zeros, with as many rows as `self_check.SETTINGS`.
    """
    sampler: Sampler | None = None

    def advance(chars: list[int]) -> tuple[bytes, Logits]:
        nonlocal states
        logits, states = step(np.array(chars), states)
        return b"".join(array.tobytes() for array in (logits, *states)), logits

    def choose(logits: Logits, uniforms: list[float]) -> tuple[bytes, list[int]]:
        nonlocal sampler
        if sampler is None:
            sampler = _sampler(logits.shape[1])
        ids: list[int] = sampler.sample(logits, np.array(uniforms)).tolist()
        return log_softmax(logits).tobytes(), ids

    return self_check.digest(vocabulary_size, advance, choose)


def _sampler(output_size: int) -> Sampler:
    sampler = Sampler(len(self_check.SETTINGS), output_size)
    for row, own in enumerate(self_check.SETTINGS):
        sampler.load(row, Sampling(seed=0, **asdict(own)))
    return sampler
