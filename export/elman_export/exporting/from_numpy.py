"""Artefacts from the five arrays of the lesson's network: W_xh, W_hh, W_hy, b_h, b_y."""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elman_export.artefacts.artefact import Artefact
from elman_export.errors import ModuleError
from elman_export.exporting.cells import StepGraphs
from elman_export.exporting.reference import reference_step
from elman_export.exporting.verify import verify
from elman_format import Metadata


def export_numpy(
    metadata: Metadata, *, w_xh: ArrayLike, w_hh: ArrayLike, w_hy: ArrayLike, b_h: ArrayLike, b_y: ArrayLike
) -> Artefact:
    """Turn the network h' = tanh(W_xh x + W_hh h + b_h), y = W_hy h' + b_y into an artefact with both graphs.

    x is a one-hot character and h starts from zeros. The artefact is verified against these equations in NumPy before
    it is returned; `save` writes it.

    Args:
        metadata: Name, version and vocabulary; the cell, its sizes and the parameters are filled in here.
        w_xh: [H, V].
        w_hh: [H, H].
        w_hy: [V, H].
        b_h: [H] or [H, 1].
        b_y: [V] or [V, 1].

    Raises:
        ModuleError: The shapes do not fit each other or the vocabulary.
        DifferenceError: The artefact does not compute these equations.
    """
    hidden_size, size = len(np.asarray(b_h)), metadata.vocabulary_size
    weights = {
        "layers.0.weight_ih": _array("w_xh", w_xh, (hidden_size, size)),
        "layers.0.weight_hh": _array("w_hh", w_hh, (hidden_size, hidden_size)),
        "layers.0.bias_ih": _array("b_h", b_h, (hidden_size,)),
        "layers.0.bias_hh": np.zeros(hidden_size, np.float32),
        "output.weight": _array("w_hy", w_hy, (size, hidden_size)),
        "output.bias": _array("b_y", b_y, (size,)),
    }
    graphs = StepGraphs("elman", weights)
    num_parameters = sum(array.size for array in weights.values()) - hidden_size  # without the zeros
    own = replace(metadata, cell="elman", num_layers=1, hidden_size=hidden_size, num_parameters=num_parameters)
    artefact = Artefact.build(graphs.step(), own, graphs.prefill())
    sources = {f"NumPy, {dtype}": reference_step("elman", weights, dtype) for dtype in ("float32", "float64")}
    verify(artefact, sources).require()
    return artefact


def _array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(value, np.float32)
    if len(shape) == 1 and array.shape == (*shape, 1):  # a column
        array = array[:, 0]
    if array.shape != shape:
        raise ModuleError(
            f"{name} has the shape {list(array.shape)}, must be {list(shape)}: V is the vocabulary's size."
        )
    return array
