"""The lesson's networks, with weights that a hand can compute with."""

import math
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from elman_export.artefacts.artefact import write_artefact
from elman_export.exporting.cells import StepGraphs, make_model, value_info
from elman_format import Metadata

Matrices = dict[str, list[list[float]] | list[float]]
Weights = dict[str, NDArray[np.float32]]

LOGITS: Final = (2.0, 1.0, 0.1)  # the lesson's, for "a", "b" and "c"

# x is the number that a character stands for: a 1, b -1, c 0.5. Read from h = 0 the "a" gives h = (0.6, 0.8),
# because tanh(ln 2) = (4 - 1) / (4 + 1) and tanh(ln 3) = (9 - 1) / (9 + 1).
NUMBERS: Final[Matrices] = {
    "embedding.weight": [[1.0], [-1.0], [0.5]],
    "layers.0.weight_ih": [[math.log(2)], [math.log(3)]],
    "layers.0.weight_hh": [[0.5, -0.25], [0.25, 0.5]],
    "output.weight": [[0.75, 0.75], [0.5, -0.5], [-1.0, 0.5]],
    "output.bias": [0.0, 0.0, 0.0],
}

# Reads "hello": one-hot characters h, e, l, o in, three units, four logits out.
HELLO: Final[Matrices] = {
    "layers.0.weight_ih": [[1.0, -0.5, 0.25, 0.0], [0.0, 1.0, 0.5, -0.5], [-0.5, 0.0, 1.0, 1.0]],
    "layers.0.weight_hh": [[0.5, 0.0, -0.25], [0.25, 0.5, 0.0], [0.0, 0.25, 0.5]],
    "output.weight": [[-1.0, -1.0, -1.0], [2.0, -1.0, -2.0], [-0.5, 2.0, 0.5], [-1.0, 0.0, 2.0]],
    "output.bias": [0.0, 0.0, 0.0, 0.0],
}
HELLO_CHARACTERS: Final = "helo"


def constant_model(path: Path, name: str) -> Path:
    """Write a model whose logits are `LOGITS` whatever it reads: characters drawn from it are independent."""
    table = np.tile(np.array(LOGITS, np.float32), (len(LOGITS), 1))
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "char"], ["logits"], axis=0),
            helper.make_node("Identity", ["state_0"], ["next_state_0"]),
        ],
        "step",
        [value_info("char", ["batch"], TensorProto.INT64), value_info("state_0", ["batch", 1])],
        [value_info("logits", ["batch", len(LOGITS)]), value_info("next_state_0", ["batch", 1])],
        [numpy_helper.from_array(table, "table")],
    )
    write_artefact(path, make_model(graph), Metadata(name, tuple("abc")))
    return path


def elman_model(path: Path, name: str, characters: str, matrices: Matrices) -> Path:
    """Write an Elman network of one layer with the given matrices; its biases in the layer are 0."""
    weights = float32(matrices)
    hidden_size = len(weights["layers.0.weight_hh"])
    for bias in ("layers.0.bias_ih", "layers.0.bias_hh"):
        weights[bias] = np.zeros(hidden_size, np.float32)
    metadata = Metadata(
        name=name,
        vocabulary=tuple(characters),
        cell="elman",
        num_layers=1,
        hidden_size=hidden_size,
        num_parameters=sum(array.size for array in weights.values()),
    )
    graphs = StepGraphs("elman", weights)
    write_artefact(path, graphs.step(), metadata, graphs.prefill())
    return path


def float32(matrices: Matrices) -> Weights:
    """Return matrices as a network holds them."""
    return {name: np.array(rows, np.float32) for name, rows in matrices.items()}
