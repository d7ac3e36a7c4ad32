"""The models that are measured: random weights, written once by the exporter's own code into build/benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

FOLDER: Final = Path(__file__).parent.parent / "build" / "benchmarks"
CHARACTERS: Final = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHAPES: Final = {"a": ("elman", 1, 128), "b": ("gru", 1, 256), "c": ("lstm", 2, 512)}


def models(*names: str) -> Path:
    """Return a folder that holds exactly these models: `a`, `b`, `c`, or `c-int8`."""
    folder = FOLDER / "+".join(names)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = folder / f"{name}.onnx"
        if not target.exists():
            target.symlink_to(artefact(name))
    return folder


def artefact(name: str) -> Path:
    """Return the file of one model; write it if it does not exist."""
    path = FOLDER / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _quantize(artefact("c"), path) if name == "c-int8" else _write(path, name, *SHAPES[name])
    return path


def _write(path: Path, name: str, cell: str, num_layers: int, hidden_size: int) -> None:
    from elman_export.artefacts.artefact import write_artefact  # noqa: PLC0415  onnx takes a second
    from elman_export.exporting.cells import GATES, StepGraphs  # noqa: PLC0415
    from elman_format import Metadata  # noqa: PLC0415

    random, gates = np.random.default_rng(0), len(GATES[cell]) * hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "output.weight": (len(CHARACTERS), hidden_size),
        "output.bias": (len(CHARACTERS),),
    }
    for layer in range(num_layers):
        width = hidden_size if layer else len(CHARACTERS)
        shapes[f"layers.{layer}.weight_ih"] = (gates, width)
        shapes[f"layers.{layer}.weight_hh"] = (gates, hidden_size)
        shapes[f"layers.{layer}.bias_ih"] = shapes[f"layers.{layer}.bias_hh"] = (gates,)
    scale = 2 / np.sqrt(hidden_size)  # wider than PyTorch's, so that the logits differ as a trained model's do
    weights = {key: (scale * random.uniform(-1, 1, shape)).astype(np.float32) for key, shape in shapes.items()}
    graphs = StepGraphs(cell, weights)
    metadata = Metadata(
        name,
        tuple(CHARACTERS),
        cell=cell,
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_parameters=sum(array.size for array in weights.values()),
    )
    write_artefact(path, graphs.step(), metadata, graphs.prefill())


def _quantize(source: Path, path: Path) -> None:
    """Write the int8 version of a model, calibrated on random characters."""
    from elman_export.artefacts.artefact import read_artefact  # noqa: PLC0415
    from elman_export.exporting.quantize import build_quantized, calibrate  # noqa: PLC0415

    model = read_artefact(source)
    ids = np.random.default_rng(1).integers(0, len(CHARACTERS), 64 * 100)
    build_quantized(model, calibrate(model, ids, "0" * 64), name="c-int8", version="1").save(path)
