"""The terms of the three cells in NumPy, from the equations: of checkpoint weights, or of int8 integers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from elman_export.exporting.cells import GATES

Floats = NDArray[np.float64]
STEP = 33 / 512  # of the table of an int8 model
Terms = dict[str, tuple[Floats, Floats, Floats]]  # by gate: W_xh x + b, W_hh h (+ b_hh of a candidate), the sum


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def float_terms(cell: str, weights: Mapping[str, Any], layer: int, x: Floats, h: Floats) -> Terms:
    """Return the terms of one layer from the weights of a checkpoint; x [in] and h [H] of one step."""
    wide = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    names = (f"layers.{layer}.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    parts = zip(GATES[cell], *(np.split(wide[name], len(GATES[cell])) for name in names), strict=True)
    found: Terms = {}
    for gate, w_ih, w_hh, b_ih, b_hh in parts:
        one = w_ih @ x + b_ih + (0 if gate == "candidate" else b_hh)
        two = w_hh @ h + (b_hh if gate == "candidate" else 0)
        found[gate] = one, two, one + two * (sigmoid(found["reset"][2]) if gate == "candidate" else 1)
    return found


def int8_terms(cell: str, path: Path, layer: int, x: Any, h: NDArray[np.float32]) -> Terms:
    """Return the terms of one layer in whole numbers, as `quantized_cells` says; x: an id, or h of the layer below."""
    graph = onnx.load(path).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def steps(of: int, state: NDArray[np.float32]) -> NDArray[np.int64]:
        whole = np.rint(state.astype(np.float32) / known[f"layer_{of}.scale"]) + 128
        clipped: NDArray[np.int64] = np.clip(whole, 0, 255).astype(np.int64)
        return clipped - 128

    found: Terms = {}
    for gate in GATES[cell]:
        name, is_candidate = f"layer_{layer}.{gate}", gate == "candidate"
        unit = known[f"{name}.weight_hh.unit"].astype(np.float64)
        two = unit * (steps(layer, h) @ known[f"{name}.weight_hh"].astype(np.int64))
        if is_candidate:
            two += unit * known[f"{name}.bias_hh"]
        if layer == 0:
            one = known[f"{name}.table"][x].astype(np.float64) * (1 if is_candidate else unit)
        else:
            own = known[f"{name}.weight_ih.unit"].astype(np.float64) if is_candidate else unit
            product = steps(layer - 1, x) @ known[f"{name}.weight_ih"].astype(np.int64)
            one = own * (product + known[f"{name}.bias"])
        found[gate] = (
            one,
            two,
            one + two * (activated(found["reset"][2], is_tanh=False, is_int8=True) if is_candidate else 1),
        )
    return found


def activated(total: Floats, *, is_tanh: bool, is_int8: bool) -> Floats:
    """Return tanh or sigmoid; of an int8 model the level of the nearest of 256 steps, as `quantized_cells` says."""
    if not is_int8:
        return np.tanh(total) if is_tanh else sigmoid(total)
    nearest = np.clip(np.rint(total / (STEP / 2 if is_tanh else STEP)), -128, 127)
    levels = np.round(254 * sigmoid(STEP * nearest)) + 1
    return (levels - 128) * 2 / 254 if is_tanh else (levels - 1) / 254


def activations(terms: Terms, *, is_int8: bool) -> dict[str, Floats]:
    """Return the value of each gate."""
    return {
        gate: activated(total, is_tanh=gate in {"hidden", "candidate", "cell"}, is_int8=is_int8)
        for gate, (_, _, total) in terms.items()
    }


def advanced(gates: dict[str, Floats], h: Floats, c: Floats | None, *, is_int8: bool) -> tuple[Floats, Floats | None]:
    """Return h and c after the step."""
    if "hidden" in gates:
        return gates["hidden"], None
    if "update" in gates:
        return (1 - gates["update"]) * gates["candidate"] + gates["update"] * h, None
    assert c is not None
    after = gates["forget"] * c + gates["input"] * gates["cell"]
    return gates["output"] * activated(after, is_tanh=True, is_int8=is_int8), after
