"""The lesson's network, trained in plain NumPy and served: five arrays and one call, no torch.

    python -m examples.numpy_rnn TEXT models/numpy-rnn.onnx
    elman-server --models models

The training is Karpathy's min-char-rnn (2015): back-propagation through 25 characters, Adagrad, clipped gradients. Only
the last statement of `main` knows Elman.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elman_export import Metadata, export_numpy

HIDDEN_SIZE, LENGTH, RATE, CLIP = 100, 25, 0.1, 5.0

Array = NDArray[np.float64]
Arrays = dict[str, Array]


def initial(size: int) -> Arrays:
    """Small random weights, zero biases."""
    random = np.random.default_rng(0)
    return {
        "w_xh": random.normal(size=(HIDDEN_SIZE, size)) * 0.01,
        "w_hh": random.normal(size=(HIDDEN_SIZE, HIDDEN_SIZE)) * 0.01,
        "w_hy": random.normal(size=(size, HIDDEN_SIZE)) * 0.01,
        "b_h": np.zeros(HIDDEN_SIZE),
        "b_y": np.zeros(size),
    }


def gradients(own: Arrays, ids: NDArray[np.int64], h: Array) -> tuple[float, Arrays, Array]:
    """Read all but the last of some characters, predict all but the first; return loss, gradients and the last h."""
    hs, loss = [h], 0.0
    ys = []
    for char, target in itertools.pairwise(ids):
        hs.append(np.tanh(own["w_xh"][:, char] + own["w_hh"] @ hs[-1] + own["b_h"]))
        y = own["w_hy"] @ hs[-1] + own["b_y"]
        p = np.exp(y - y.max())
        ys.append(p / p.sum())
        loss -= float(np.log(ys[-1][target]))
    found = {name: np.zeros_like(array) for name, array in own.items()}
    d_next = np.zeros(HIDDEN_SIZE)
    for t in reversed(range(len(ys))):
        dy = ys[t] - np.eye(len(ys[t]))[ids[t + 1]]  # softmax and cross-entropy together
        found["w_hy"] += np.outer(dy, hs[t + 1])
        found["b_y"] += dy
        d_sum = (own["w_hy"].T @ dy + d_next) * (1 - hs[t + 1] ** 2)  # through tanh
        found["b_h"] += d_sum
        found["w_xh"][:, ids[t]] += d_sum
        found["w_hh"] += np.outer(d_sum, hs[t])
        d_next = own["w_hh"].T @ d_sum
    return loss / len(ys), found, hs[-1]


def train(text: str, characters: list[str], num_steps: int) -> Arrays:
    """Read the text in pieces, from its beginning and again."""
    ids = np.array([characters.index(character) for character in text])
    own = initial(len(characters))
    squares = {name: np.zeros_like(array) for name, array in own.items()}
    at, h = 0, np.zeros(HIDDEN_SIZE)
    for step in range(num_steps):
        if at + LENGTH + 1 > len(ids):
            at, h = 0, np.zeros(HIDDEN_SIZE)
        loss, found, h = gradients(own, ids[at : at + LENGTH + 1], h)
        for name, gradient in found.items():
            gradient.clip(-CLIP, CLIP, out=gradient)
            squares[name] += gradient**2
            own[name] -= RATE * gradient / np.sqrt(squares[name] + 1e-8)
        if step % 1000 == 0:
            print(f"step {step}: {loss:.3f} nats per character")
        at += LENGTH
    return own


def main(text_file: str, output: str, num_steps: str = "20000") -> None:
    """Train, then write the artefact: W_xh, W_hh, W_hy, b_h and b_y by their names."""
    text = Path(text_file).read_text()
    characters = sorted(set(text))
    own = train(text, characters, int(num_steps))
    export_numpy(Metadata(Path(output).stem, tuple(characters)), **own).save(Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
