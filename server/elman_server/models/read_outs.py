"""Read-outs: what a model reports about the characters that it reads, in addition to or instead of the next one.

A *tagging model* outputs labels. A *probe* is one matrix that the exporter fitted to the states of any model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from elman_server.domain.sampling import log_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    import elman_format


@dataclass(frozen=True, slots=True)
class Probe:
    """softmax(weight state + bias) over labels; the state is all of a row's tensors, flat, in the model's order.

    Attributes:
        weight: [L, S] float64, from float32.
        bias: [L] float64.
        accuracy: on texts held out when it was fitted; 0 if unknown.
        num_held_out: on how many characters; 0 if unknown.
    """

    name: str
    labels: tuple[str, ...]
    weight: NDArray[np.float64] = field(repr=False)
    bias: NDArray[np.float64] = field(repr=False)
    accuracy: float
    num_held_out: int

    @classmethod
    def of(cls, name: str, probe: elman_format.Probe) -> Probe:
        """Return a probe of an artefact, ready to read states."""
        weight, bias = (np.frombuffer(numbers, "<f4").astype(np.float64) for numbers in (probe.weight, probe.bias))
        weight = weight.reshape(len(probe.labels), probe.num_inputs)
        return cls(name, probe.labels, weight, bias, probe.accuracy, probe.num_held_out)

    def read(self, states: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Return log-probabilities in nats, [T, L], given T rows of each state.

        Each position is computed alone and in one order of summing, without BLAS: its bits do not depend on what
        it is read with.
        """
        rows = np.concatenate([state.reshape(len(state), -1) for state in states], axis=1)
        sums = [np.add.accumulate(self.weight * row, axis=1)[:, -1] for row in rows]
        return log_softmax(np.stack(sums) + self.bias)
