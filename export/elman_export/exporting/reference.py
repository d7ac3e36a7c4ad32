"""The three cells in NumPy, from their equations: the reference for every other form.

`sigmoid` is 1 / (1 + exp(-x)); biases and gate order are those of `torch.nn.RNN`, `GRU` and `LSTM`.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from elman_export.artefacts.runtime import Array

# (char [B] int64, states [B, ...]) to (logits [B, V], next states)
Step = Callable[[NDArray[np.int64], Sequence[Array]], tuple[Array, list[Array]]]


def elman(x: Array, h: Array) -> Array:
    """The step h' = tanh(W_ih x + b_ih + W_hh h + b_hh), from its two sums [B, H] (Elman 1990)."""
    return np.tanh(x + h)


def gru(x: Sequence[Array], w: Sequence[Array], h: Array) -> Array:
    """Gates r, z, n (Cho et al. 2014, as in PyTorch).

    Args:
        x: W_ih x + b_ih of r, z and n, [B, H] each.
        w: W_hh h + b_hh of r, z and n, [B, H] each.
        h: The state, [B, H].

    Returns:
        h' = (1 - z) n + z h, where n = tanh(x_n + r w_n).
    """
    r = _sigmoid(x[0] + w[0])
    z = _sigmoid(x[1] + w[1])
    n = np.tanh(x[2] + r * w[2])
    return (1 - z) * n + z * h


def lstm(x: Sequence[Array], w: Sequence[Array], c: Array) -> tuple[Array, Array]:
    """Gates i, f, g, o (Hochreiter and Schmidhuber 1997, with the gate f that Gers 2000 added).

    Args:
        x: W_ih x + b_ih of the four, [B, H] each.
        w: W_hh h + b_hh of the four, [B, H] each.
        c: The cell, [B, H].

    Returns:
        h' = o tanh(c') and c' = f c + i g.
    """
    i, f, o = (_sigmoid(x[gate] + w[gate]) for gate in (0, 1, 3))
    g = np.tanh(x[2] + w[2])
    c = f * c + i * g
    return o * np.tanh(c), c


def reference_step(cell: str, weights: Mapping[str, NDArray[np.float32]], dtype: DTypeLike = np.float64) -> Step:
    """The step of a whole network in the given precision.

    Args:
        cell: `elman`, `gru` or `lstm`.
        weights: As `StepGraphs` takes them.
        dtype: What everything is computed in.
    """
    w = {name: array.astype(dtype) for name, array in weights.items()}
    num_layers = sum(name.endswith(".weight_hh") for name in w)
    # Without an embedding W_ih x is a column of W_ih: x is one-hot.
    embedding = w["embedding.weight"] if "embedding.weight" in w else np.eye(len(w["output.bias"]), dtype=dtype)

    def step(char: NDArray[np.int64], state: Sequence[Array]) -> tuple[Array, list[Array]]:
        remaining = [part.astype(dtype) for part in state]
        after: list[Array] = []
        x = embedding[char]
        for layer in range(num_layers):
            h, name = remaining.pop(0), f"layers.{layer}."
            x_sums = x @ w[f"{name}weight_ih"].T + w[f"{name}bias_ih"]
            h_sums = h @ w[f"{name}weight_hh"].T + w[f"{name}bias_hh"]
            if cell == "elman":
                x = elman(x_sums, h_sums)
                after.append(x)
            elif cell == "gru":
                x = gru(np.split(x_sums, 3, axis=1), np.split(h_sums, 3, axis=1), h)
                after.append(x)
            else:
                c = remaining.pop(0)
                x, c = lstm(np.split(x_sums, 4, axis=1), np.split(h_sums, 4, axis=1), c)
                after += [x, c]
        return x @ w["output.weight"].T + w["output.bias"], after

    return step


def _sigmoid(x: Array) -> Array:
    # The two halves of the same function, so that exp never overflows.
    result: Array = np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
    return result
