"""What characters were sampled from: the distribution after bias, penalty, temperature and filters, and the uniform.

The same definition as the sampler's, a row at a time and in whole distributions; a test compares them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from elman_server.domain import exact
from elman_server.engine.core.sampler import COLDEST, penalize, uniforms
from elman_server.engine.job import IdEffective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elman_server.domain.sampling import Sampling

    Logits = NDArray[np.float32]


class EffectiveTrace:
    """Follows the characters of one text.

    Args:
        sampling: how they are sampled.
        position: of the next one.
        before: the end of the text before it.
    """

    def __init__(self, sampling: Sampling, position: int, before: Sequence[int]) -> None:
        self._sampling = sampling
        self._position = position
        self._window = deque(before, maxlen=sampling.repetition_window)

    def next(self, logits: Logits, character: int, top_n: int) -> IdEffective:
        """Return what the next character was sampled from; logits [V]."""
        sampling = self._sampling
        uniform = float(uniforms(sampling.seed, self._position).random())
        found = effective(self._adjusted(logits), sampling, uniform, character, top_n)
        self._position += 1
        self._window.append(character)
        return found

    def _adjusted(self, logits: Logits) -> Logits:
        """Return the logits after bias and penalty."""
        sampling = self._sampling
        if sampling.bias:
            logits = logits.copy()
            for character, bias in sampling.bias:
                logits[character] += np.float32(bias)
        if sampling.repetition_penalty == 1:
            return logits
        seen = np.bincount(self._window, minlength=len(logits)) > 0
        penalized: Logits = penalize(logits[None], seen[None], np.array([[sampling.repetition_penalty]]))[0]
        return penalized


def effective(logits: Logits, sampling: Sampling, uniform: float, character: int, top_n: int) -> IdEffective:
    """Return the distribution from which a character was sampled; logits [V] after bias and penalty."""
    if sampling.temperature == 0:
        return IdEffective(0.0, [(character, 0.0)][:top_n], 1, uniform, 0.0)
    distance = (logits.max() - logits).astype(np.float64)  # [V], in float32 as the sampler takes it
    order = np.argsort(distance, kind="stable") if sampling.filters else np.arange(len(logits))
    log_weight = -distance[order] * min(1 / sampling.temperature, COLDEST)
    mass = exact.exp(log_weight)
    total = np.add.accumulate(mass)
    last = int(np.argmax(total >= total[min(sampling.top_k or len(mass), len(mass)) - 1] * sampling.top_p))
    if sampling.min_p > 0:
        last = min(last, int(np.count_nonzero(mass >= sampling.min_p)) - 1)
    log_total = float(exact.log(total[last]))
    at = int(np.flatnonzero(order == character)[0])
    kept = np.flatnonzero(mass[: last + 1])
    likeliest = kept[np.argsort(-log_weight[kept], kind="stable")][:top_n]
    return IdEffective(
        log_probability=float(log_weight[at]) - log_total,
        top=[(int(order[index]), float(log_weight[index]) - log_total) for index in likeliest],
        num_kept=len(kept),
        uniform=uniform,
        below=float(total[at - 1] / total[last]) if at else 0.0,
    )
