"""Mean losses and their standard errors."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]  # nats, one a symbol, in the order of the text

WINDOW = 256  # symbols; the losses of such windows are treated as independent


@dataclass(frozen=True, slots=True)
class Loss:
    """A mean loss; of a difference of losses it may be negative.

    Attributes:
        nats: Per character.
        standard_error: Of that mean, in nats; 0 with fewer than two windows.
        num_characters: The number of predicted characters.
    """

    nats: float
    standard_error: float
    num_characters: int

    @property
    def bits(self) -> float:
        """Per character."""
        return self.nats / math.log(2)

    @classmethod
    def of(cls, losses: Losses, characters: NDArray[np.bool_] | None = None) -> "Loss":
        """The mean over a text.

        Neighbouring losses are correlated, so the error is estimated from the sums of whole windows: that of a
        ratio, sum of nats over number of characters (Cochran, Sampling Techniques, 1977, section 6.3).

        Args:
            losses: ``[N]``, at least one.
            characters: ``[N]``, whether a symbol begins a character: not all bytes do. By default all symbols.
        """
        counted = np.ones(len(losses)) if characters is None else characters.astype(np.float64)
        starts = np.arange(0, len(losses), WINDOW if len(losses) > 2 * WINDOW else max(1, len(losses) // 2))
        sums, counts = np.add.reduceat(losses, starts), np.add.reduceat(counted, starts)  # [n] of each window
        mean = float(sums.sum() / counts.sum())
        residuals = sums - mean * counts
        n = len(starts)
        error = math.sqrt(n / (n - 1) * float(residuals @ residuals)) / float(counts.sum()) if n > 1 else 0.0
        return cls(mean, error, int(counts.sum()))
