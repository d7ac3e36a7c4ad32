from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from elman_export.exporting.cells import GATES
from elman_export.exporting.reference import reference_step
from tests.models import CHARACTERS, random_weights

if TYPE_CHECKING:
    from elman_export.artefacts.runtime import Array

LAYERS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@pytest.mark.parametrize("cell", GATES)
def test_the_equations_are_pytorchs(cell: str):
    """Over 100 characters, two layers, in float64, they agree to the last digits (R1)."""
    weights = random_weights(cell, 2, embedding_size=8)
    layers = LAYERS[cell](8, 16, num_layers=2, dtype=torch.float64)
    layers.load_state_dict(
        {
            f"{name}_l{layer}": torch.tensor(weights[f"layers.{layer}.{name}"], dtype=torch.float64)
            for layer in range(2)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
    )
    chars = np.random.default_rng(0).integers(0, len(CHARACTERS), (100, 3))
    with torch.no_grad():
        hidden, _ = layers(torch.tensor(weights["embedding.weight"][chars], dtype=torch.float64))
    expected = hidden.numpy() @ weights["output.weight"].T + weights["output.bias"]

    step = reference_step(cell, weights)
    state: list[Array] = [np.zeros((3, 16)) for _ in range(4 if cell == "lstm" else 2)]
    for char, logits in zip(chars, expected, strict=True):
        actual, state = step(char, state)
        np.testing.assert_allclose(actual, logits, atol=1e-12)


def test_the_lessons_example_by_hand():
    """Input 1, state of two units: h = tanh(W_hh h + W_xh x + b), worked out with a pencil (R8)."""
    weights = {
        "layers.0.weight_ih": [[0.5], [-0.3]],
        "layers.0.weight_hh": [[0.1, 0.2], [0.0, 0.4]],
        "layers.0.bias_ih": [0.1, 0.0],
        "layers.0.bias_hh": [0.0, -0.1],
        "output.weight": [[1.0, -1.0]],
        "output.bias": [0.5],
    }
    step = reference_step("elman", {name: np.array(value, np.float32) for name, value in weights.items()})
    logits, (h,) = step(np.array([0]), [np.array([[1.0, -1.0]])])
    # 0.1 * 1 + 0.2 * -1 + 0.5 + 0.1 = 0.5 and 0.4 * -1 - 0.3 - 0.1 = -0.8
    np.testing.assert_allclose(h, [[np.tanh(0.5), np.tanh(-0.8)]], atol=1e-7)
    np.testing.assert_allclose(logits, [[np.tanh(0.5) - np.tanh(-0.8) + 0.5]], atol=1e-7)


def test_the_gates_never_overflow():
    """Sums that exp cannot take still give gates of 0 and 1."""
    weights = random_weights("gru")
    weights["layers.0.bias_ih"] = np.where(np.arange(48) % 2, 1e4, -1e4).astype(np.float32)
    logits, _ = reference_step("gru", weights)(np.array([0]), [np.zeros((1, 16))])
    assert np.isfinite(logits).all()
