"""The known cells with int8 products: the graphs of `cells` with int8 weights and integer sums.

Every sum W_ih x + W_hh h + b is computed in int32, in a unit for each column, and scaled to float32 once, at the end.
Integer sums are equal in any order, batch and chunk: no product can make a row depend on its neighbours or prefill
differ from stepping.

    h_q  = round(h / s) + 128                  uint8; s is calibrated, one a layer, and never depends on the batch
    W_q  = round(W s / u)                      int8; u is one number for each column
    sum  = u (W_q (h_q - 128) + round(b / u))

Activations are read from one table of 256 bytes, T(q) = round(254 sigmoid(STEP q)) + 1 for q from -128 to 127, at
the nearest q. As tanh(x) = 2 sigmoid(2x) - 1, it serves for both. onnxruntime computes the table when it loads the
graph. Each processor's sigmoid has errors of its own, up to 1e-7, but every entry is 4e-5 or more from where it would
be rounded otherwise: the table is the same everywhere. All other operators are sums of integers, conversions,
roundings, and single float32 additions and products, which IEEE 754 defines to the bit. So the graphs compute equal
bits on every machine.

Only the GRU's candidate has two sums, because the reset gate scales one of them. For the others a step computes both
products in one, [W_ih W_hh] of [x h]; prefill computes W_ih x over all positions first, with the same integer result.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from elman_export.exporting.cells import GATES, CellGraphs, Ops

DOMAIN = "com.microsoft"
ZERO_POINT = 128
# Not 127: without VNNI, x86 adds pairs of products in 16 bits, and 2 * 255 * 64 is what they hold.
MAX_WEIGHT = 64
# The limit of a bias or a row of a table, so that no sum overflows 32 bits.
MAX_ADDEND = 2**30

# Of the table, chosen for the distance above. It reaches from -8.25 to 8.19: sigmoid(8.25) = 0.9997.
STEP = 33 / 512
NUM_LEVELS = 254  # so that 0, 1/2 and 1 are levels, and -1, 0 and 1 of tanh

_JOINED = ".joined"
_TABLE: dict[str, NDArray[np.generic]] = {
    "table.step": np.array(STEP, np.float32),
    "table.level": np.array(1 / NUM_LEVELS, np.float32),
    "table.first": np.array(1, np.uint8),
    "tanh.step": np.array(STEP / 2, np.float32),
    "tanh.level": np.array(2 / NUM_LEVELS, np.float32),
}

Floats = Mapping[str, NDArray[np.float32]]


class QuantizedGraphs(CellGraphs):
    """Builds both int8 graphs of one network.

    Args:
        cell: `elman`, `gru` or `lstm`.
        floats: The initializers of the float32 graphs, as `CellGraphs` takes them.
        scales: The unit of h_q in each layer, float32 and positive; |h| beyond 127 units is clipped.
    """

    def __init__(self, cell: str, floats: Floats, scales: Sequence[float]) -> None:
        super().__init__(cell, _quantize(cell, floats, scales))

    def _operand(self, ops: Ops, layer: int, h: str) -> str:
        return ops.add("QuantizeLinear", h, f"layer_{layer}.scale", "zero_point")

    def _step_inputs(self, ops: Ops, layer: int, x: str) -> tuple[dict[str, str], str]:
        if layer == 0:
            return super()._step_inputs(ops, layer, x)
        below = self._operand(ops, layer - 1, x)
        gates = {gate: f"layer_{layer}.{gate}" for gate in GATES[self._cell]}
        return {
            gate: self._input_product(ops, below, name) if _has_two_sums(name) else f"{name}.bias"
            for gate, name in gates.items()
        }, below

    def _recurrent(self, ops: Ops, layer: int, h: str, below: str) -> dict[str, tuple[str, str]]:
        products = super()._recurrent(ops, layer, h, below)
        if not below:
            return products
        operand, _ = next(iter(products.values()))
        both = ops.add("Concat", below, operand, axis=1)
        for gate, (_, weight) in products.items():
            name = f"layer_{layer}.{gate}"
            if not _has_two_sums(name):  # onnxruntime joins two constants once, when it loads them
                parts = (f"{name}.weight_ih", weight)
                products[gate] = both, ops.add("Concat", *parts, axis=0, out=f"{weight}{_JOINED}")
        return products

    def _product(self, ops: Ops, operand: str, weight: str, addend: str, out: str = "") -> str:
        return self._sum(ops, operand, weight, addend, out=out)

    def _sum(self, ops: Ops, operand: str, weight: str, addend: str, *scale: str, out: str = "") -> str:
        """The sum in float32; with a scale, a step and a zero point, in uint8."""
        of = weight.removesuffix(_JOINED)
        column = (f"{of}.unit", f"{of}.zero_point")
        return ops.add("QGemm", operand, "one", "zero_point", weight, *column, addend, *scale, out=out, domain=DOMAIN)

    def _activated_sum(self, ops: Ops, kind: str, terms: tuple[str, str, str], out: str) -> str:
        step = "tanh.step" if kind == "Tanh" else "table.step"
        return self._looked_up(ops, kind, self._sum(ops, *terms, step, "zero_point"), out)

    def _tanh(self, ops: Ops, x: str) -> str:
        return self._looked_up(ops, "Tanh", ops.add("QuantizeLinear", x, "tanh.step", "zero_point"))

    def _looked_up(self, ops: Ops, kind: str, q: str, out: str = "") -> str:
        table = ("table.step", "zero_point", "table.level", "table.first")
        byte = ops.add("QLinearSigmoid", q, *table, domain=DOMAIN)
        levels = ("tanh.level", "zero_point") if kind == "Tanh" else ("table.level", "table.first")
        return ops.add("DequantizeLinear", byte, *levels, out=out)

    def _input_product(self, ops: Ops, operand: str, gate: str) -> str:
        if self._addend_type(gate) == TensorProto.FLOAT:
            return super()._input_product(ops, operand, gate)
        return ops.add("Add", ops.add("MatMulInteger", operand, f"{gate}.weight_ih", "zero_point"), f"{gate}.bias")

    def _addend_type(self, gate: str) -> int:
        return TensorProto.FLOAT if _has_two_sums(gate) else TensorProto.INT32

    def _model(self, ops: Ops, positions: list[str | int]) -> onnx.ModelProto:
        model = super()._model(ops, positions)
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return model


def _has_two_sums(gate: str) -> bool:
    return gate.endswith("candidate")


def _quantize(cell: str, floats: Floats, scales: Sequence[float]) -> dict[str, NDArray[np.generic]]:
    """The initializers of the int8 graphs: the float32 ones by the same names, and their units."""
    whole: dict[str, NDArray[np.generic]] = {
        "one": np.array(1, np.float32),
        "zero_point": np.array(ZERO_POINT, np.uint8),
        **_TABLE,
    }
    for layer, scale in enumerate(scales):
        whole[f"layer_{layer}.scale"] = np.array(scale, np.float32)
        below = scales[layer - 1] if layer else 0.0
        for gate in GATES[cell]:
            name = f"layer_{layer}.{gate}"
            inputs = {f"{name}.weight_ih": below} if layer else {}
            addend = f"{name}.bias" if layer else f"{name}.table"
            recurrent = {f"{name}.weight_hh": scale}
            if not _has_two_sums(gate):
                whole |= _terms(floats, inputs | recurrent, addend)
                continue
            whole |= _terms(floats, recurrent, f"{name}.bias_hh")
            whole |= _terms(floats, inputs, addend) if layer else {addend: floats[addend]}
    return whole | _terms(floats, {"output.weight": scales[-1]}, "output.bias")


def _terms(floats: Floats, weights: Mapping[str, float], addend: str) -> dict[str, NDArray[np.generic]]:
    """The terms of one sum in its units.

    Args:
        floats: The float32 values.
        weights: Name to the scale of what it multiplies, [in, N] each; the last one completes the sum.
        addend: Its bias [N] or table [V, N].
    """
    wide = {name: floats[name].astype(np.float64) * scale for name, scale in weights.items()}
    constant = floats[addend].astype(np.float64)
    largest = [np.abs(array).max(axis=0) / MAX_WEIGHT for array in wide.values()]
    unit = np.max([*largest, np.abs(np.atleast_2d(constant)).max(axis=0) / MAX_ADDEND], axis=0)  # [N]
    unit = np.where(unit > 0, unit, 1).astype(np.float32)
    last = list(weights)[-1]
    return {
        **{name: np.rint(array / unit).astype(np.int8) for name, array in wide.items()},
        addend: np.rint(constant / unit).astype(np.int32),
        f"{last}.unit": unit,
        f"{last}.zero_point": np.zeros(len(unit), np.int8),
    }
