"""The lesson's five arrays as an artefact."""

from typing import Any

import numpy as np
import pytest

from elman_export import Metadata, ModuleError, export_numpy
from elman_export.artefacts.runtime import Runtime
from tests.models import CHARACTERS

HIDDEN, SIZE = 12, len(CHARACTERS)
METADATA = Metadata("mine", tuple(CHARACTERS))


def arrays(**change: Any) -> dict[str, Any]:
    """Random weights of a trained size."""
    random = np.random.default_rng(0)
    shapes = {
        "w_xh": (HIDDEN, SIZE),
        "w_hh": (HIDDEN, HIDDEN),
        "w_hy": (SIZE, HIDDEN),
        "b_h": (HIDDEN,),
        "b_y": (SIZE,),
    }
    return {name: random.normal(size=shape) / 2 for name, shape in shapes.items()} | change


@pytest.mark.parametrize("is_column", [False, True])
def test_the_artefact_computes_the_lessons_equations(is_column: bool):  # noqa: FBT001
    """H = tanh(W_xh x + W_hh h + b_h), y = W_hy h + b_y, at every character; biases may be columns."""
    own = arrays()
    given = own | {name: own[name][:, None] for name in ("b_h", "b_y") if is_column}
    artefact = export_numpy(METADATA, **given)
    runtime = Runtime(artefact)
    logits, _ = runtime.advance(np.array([[3], [5], [3]]), runtime.initial_state(1))
    h = np.zeros(HIDDEN)
    for char, found in zip((3, 5, 3), logits[:, 0], strict=True):
        x = np.eye(SIZE)[char]
        h = np.tanh(own["w_xh"] @ x + own["w_hh"] @ h + own["b_h"])
        assert np.allclose(found, own["w_hy"] @ h + own["b_y"], atol=1e-5)


def test_it_is_of_a_known_cell():
    """So it has a prefill graph and can be quantized; the lesson's parameters are counted."""
    own = export_numpy(METADATA, **arrays()).metadata
    assert (own.cell, own.num_layers, own.hidden_size) == ("elman", 1, HIDDEN)
    assert own.num_parameters == HIDDEN * SIZE + HIDDEN * HIDDEN + SIZE * HIDDEN + HIDDEN + SIZE


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("w_xh", (SIZE, HIDDEN), f"w_xh has the shape [{SIZE}, {HIDDEN}], must be [{HIDDEN}, {SIZE}]"),
        ("b_y", (SIZE + 1,), f"b_y has the shape [{SIZE + 1}], must be [{SIZE}]"),
    ],
)
def test_other_shapes_are_refused(name: str, shape: tuple[int, ...], sentence: str):
    """The sentence names the array and both shapes."""
    with pytest.raises(ModuleError) as refused:
        export_numpy(METADATA, **arrays(**{name: np.zeros(shape)}))
    assert sentence in str(refused.value)
