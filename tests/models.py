"""Tiny artefacts, made in milliseconds by the exporter's own code, for tests that need a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from elman_export.artefacts.artefact import read_artefact, write_artefact
from elman_export.exporting.cells import GATES, StepGraphs, make_model
from elman_export.exporting.quantize import build_quantized, calibrate
from elman_format import Metadata, specials_of

# The 65 characters of tiny Shakespeare, in code point order.
CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def random_weights(
    cell: str,
    num_layers: int = 1,
    hidden_size: int = 16,
    seed: int = 0,
    *,
    vocabulary_size: int = len(CHARACTERS),
    embedding_size: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Uniform weights under the names that a checkpoint gives them."""
    random = np.random.default_rng(seed)
    gates = len(GATES[cell]) * hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    if embedding_size:
        shapes["embedding.weight"] = (vocabulary_size, embedding_size)
    for layer in range(num_layers):
        width = hidden_size if layer else embedding_size or vocabulary_size
        shapes[f"layers.{layer}.weight_ih"] = (gates, width)
        shapes[f"layers.{layer}.weight_hh"] = (gates, hidden_size)
        shapes[f"layers.{layer}.bias_ih"] = shapes[f"layers.{layer}.bias_hh"] = (gates,)
    shapes["output.weight"] = (vocabulary_size, hidden_size)
    shapes["output.bias"] = (vocabulary_size,)
    # Wider than a fresh PyTorch cell, so that the state moves and the logits differ.
    scale = 2 / np.sqrt(hidden_size)
    return {name: (scale * random.uniform(-1, 1, shape)).astype(np.float32) for name, shape in shapes.items()}


def tiny_model(
    path: Path,
    cell: str = "gru",
    num_layers: int = 1,
    hidden_size: int = 16,
    seed: int = 0,
    *,
    vocabulary: Sequence[str] | None = CHARACTERS,
    version: str = "1",
    name: str = "tiny",
    prefill: bool = True,
) -> Path:
    """Write a model of random weights; `vocabulary=None` reads bytes.

    Args:
        path: The file to write.
        cell: `elman`, `gru` or `lstm`.
        num_layers: Layers.
        hidden_size: Units of a layer.
        seed: Of the weights.
        vocabulary: The characters in id order; names of specials among them.
        version: The artefact's version.
        name: The artefact's name.
        prefill: Whether the prefill graph travels along.

    Returns:
        The path.
    """
    symbols = None if vocabulary is None else tuple(vocabulary)
    size = 256 if symbols is None else len(symbols)
    weights = random_weights(cell, num_layers, hidden_size, seed, vocabulary_size=size)
    for special in specials_of(symbols or ()).values():
        weights["output.bias"][special] += 100  # by itself the model would write nothing else
    graphs = StepGraphs(cell, weights)
    metadata = Metadata(
        name=name,
        vocabulary=symbols,
        version=version,
        cell=cell,
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_parameters=sum(array.size for array in weights.values()),
    )
    write_artefact(path, graphs.step(), metadata, graphs.prefill() if prefill else None)
    return path


def tagging_model(path: Path, labels: Sequence[str], name: str = "tags", *, prefill: bool = True) -> Path:
    """Write a GRU of random weights with labels for output."""
    weights = random_weights("gru", 2, seed=5)
    wide = random_weights("gru", 2, seed=6)
    for part in ("output.weight", "output.bias"):
        weights[part] = wide[part][: len(labels)]
    graphs = StepGraphs("gru", weights)
    metadata = Metadata(name, tuple(CHARACTERS), cell="gru", num_layers=2, hidden_size=16, labels=tuple(labels))
    write_artefact(path, graphs.step(), metadata, graphs.prefill() if prefill else None)
    return path


def nan_model(path: Path, name: str = "nan") -> Path:
    """Write a model whose row turns NaN once it has read "!" three times in a row."""
    size = len(CHARACTERS)
    table = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    initializers: dict[str, NDArray[Any]] = {
        "table": table,
        "mark": np.array(CHARACTERS.index("!"), np.int64),
        "one": np.array([1], np.float32),
        "zero": np.array([0], np.float32),
        "last": np.array([2.5], np.float32),
        "nan": np.array([np.nan], np.float32),
        "column": np.array([-1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Equal", ["char", "mark"], ["is_mark_row"]),
        helper.make_node("Reshape", ["is_mark_row", "column"], ["is_mark"]),
        helper.make_node("Add", ["state_0", "one"], ["counted"]),
        helper.make_node("Where", ["is_mark", "counted", "zero"], ["next_state_0"]),
        helper.make_node("Greater", ["next_state_0", "last"], ["is_broken"]),
        helper.make_node("Gather", ["table", "char"], ["finite"], axis=0),
        helper.make_node("Where", ["is_broken", "nan", "finite"], ["logits"]),
    ]
    _write_other(path, nodes, initializers, name)
    return path


def endless_model(path: Path, name: str = "endless", *, grows: bool = False) -> Path:
    """Write a model whose step never ends; with `grows` it takes twice the memory with every round."""
    table = np.random.default_rng(0).normal(size=(len(CHARACTERS), len(CHARACTERS))).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["again_out"]),
            helper.make_node("Concat", ["kept", "kept"], ["kept_out"], axis=0)
            if grows
            else helper.make_node("Identity", ["kept"], ["kept_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, [None]),
        ],
        [
            helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept_out", TensorProto.FLOAT, [None]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["", "true", "zero"], ["kept_last"], body=body),
        helper.make_node("ReduceMin", ["kept_last"], ["lowest"], keepdims=0),
        helper.make_node("Add", ["state_0", "lowest"], ["next_state_0"]),
        helper.make_node("Gather", ["table", "char"], ["finite"], axis=0),
        helper.make_node("Add", ["finite", "lowest"], ["logits"]),
    ]
    zero, true = np.array([0], np.float32), np.array(True)
    _write_other(path, nodes, {"table": table, "zero": zero, "true": true}, name)
    return path


def _write_other(
    path: Path,
    nodes: list[onnx.NodeProto],
    initializers: Mapping[str, NDArray[Any]],
    name: str,
) -> None:
    graph = helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("char", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("state_0", TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CHARACTERS)]),
            helper.make_tensor_value_info("next_state_0", TensorProto.FLOAT, ["batch", 1]),
        ],
        [numpy_helper.from_array(array, key) for key, array in initializers.items()],
    )
    write_artefact(path, make_model(graph), Metadata(name, tuple(CHARACTERS)))


def quantized_model(
    path: Path, cell: str = "gru", num_layers: int = 1, hidden_size: int = 16, name: str = "int8"
) -> Path:
    """Write the int8 form of a `tiny_model`, calibrated on random characters."""
    source = read_artefact(tiny_model(path, cell, num_layers, hidden_size, seed=3))
    ids = np.random.default_rng(1).integers(0, len(CHARACTERS), 6400)
    build_quantized(source, calibrate(source, ids, "0" * 64), name=name, version="1").save(path)
    return path
