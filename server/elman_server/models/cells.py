"""The known cells: their weights out of an artefact, and their equations in NumPy.

Everything is computed in float64, for many positions at once: [T, H]. An artefact holds one matrix a gate, transposed,
and in layer 0 a table with W_xh x + b for every character (`elman_export.exporting.cells`). An int8 one holds integers
and their units (`elman_export.exporting.quantized_cells`); here they are the numbers that they stand for. It rounds h
before products and, unless it is of an old release, each sum to a step of one table of activations. These roundings are
computed in float32 as the graph does, so that they give the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from elman_format import tensors
from elman_server.domain.inspection import Signal
from elman_server.models.signals import SUMS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from elman_format import Tensor
    from elman_server.models.artefact import Artefact

    Floats = NDArray[np.float64]

_TANH: Final = frozenset({Signal.H, Signal.CANDIDATE, Signal.CELL})
_DTYPES: Final = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4"}  # TensorProto.DataType
_ZERO_POINT: Final = 128.0
_MAX_OPERAND: Final = 255.0


class AbsentError(Exception):
    """An artefact's cell cannot be computed here; the message says why."""


class GateTerms(NamedTuple):
    """One sum and its activation, at each position [T, H]; the biases are [H] or None."""

    signal: Signal
    input: Floats
    recurrent: Floats
    bias: Floats | None
    recurrent_bias: Floats | None
    pre_activation: Floats
    activation: Floats


class LayerTerms(NamedTuple):
    """The terms of one layer: its sums, and h and c after each step, [T, H]; c is None unless the cell is an LSTM."""

    gates: tuple[GateTerms, ...]
    h: Floats
    c: Floats | None


@dataclass(frozen=True, slots=True)
class Gate:
    """The weights of one sum.

    Attributes:
        input: [V, H] in layer 0, with `bias` added if that is None; [H, H] above.
        recurrent: [H, H].
        bias: [H].
        recurrent_bias: [H], of a GRU's candidate.
        unit: [H], of an int8 model: what the recurrent sum counts in.
    """

    signal: Signal
    input: Floats
    recurrent: Floats
    bias: Floats | None
    recurrent_bias: Floats | None
    unit: Floats | None = None

    def narrowed(self, units: NDArray[np.int64]) -> Gate:
        """Return the weights of some units alone."""

        def of(part: Floats) -> Floats:
            return np.ascontiguousarray(part[..., units])

        return Gate(
            self.signal,
            of(self.input),
            of(self.recurrent),
            None if self.bias is None else of(self.bias),
            None if self.recurrent_bias is None else of(self.recurrent_bias),
            None if self.unit is None else of(self.unit),
        )


@dataclass(frozen=True, slots=True)
class Table:
    """The activations of an int8 model: 256 levels of a sigmoid at multiples of a step, which serve for tanh, too.

    Attributes:
        step, tanh_step: of the sums.
        level, tanh_level: of the results.
    """

    step: np.float32
    tanh_step: np.float32
    level: np.float32
    tanh_level: np.float32

    def sigmoid(self, scaled: NDArray[np.float32]) -> Floats:
        """Return the sigmoid of sums, given in steps."""
        return ((self._bytes(scaled) - 1) * self.level).astype(np.float64)

    def tanh(self, scaled: NDArray[np.float32]) -> Floats:
        """Return the tanh of sums, given in steps."""
        return ((self._bytes(scaled) - np.float32(_ZERO_POINT)) * self.tanh_level).astype(np.float64)

    def _bytes(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        nearest = np.clip(np.rint(scaled), -_ZERO_POINT, _MAX_OPERAND - _ZERO_POINT).astype(np.float64)
        levels = np.rint(_sigmoid(nearest * float(self.step)) / float(self.level)) + 1
        found: NDArray[np.float32] = np.minimum(levels, _MAX_OPERAND).astype(np.float32)
        return found


@dataclass(frozen=True, slots=True)
class Cells:
    """The layers of one network.

    Attributes:
        cell: `elman`, `gru` or `lstm`.
        layers: the sums of each.
        scales: of an int8 model the unit of each layer's h in products; empty: h itself.
        table: of an int8 model that looks its activations up.
        output_weight: [H, V].
        output_bias: [V].
    """

    cell: str
    layers: tuple[tuple[Gate, ...], ...]
    scales: tuple[float, ...]
    output_weight: Floats
    output_bias: Floats
    table: Table | None = None

    def terms(
        self, layer: int, below: NDArray[np.int64] | NDArray[np.float32], h: Floats, c: Floats | None
    ) -> LayerTerms:
        """Return the terms of one layer.

        Args:
            layer: from 0.
            below: the characters [T] that layer 0 reads; else h of the layer below after the same step, [T, H].
            h: before each step, [T, H].
            c: of an LSTM, before each step.
        """
        found = self.gates(layer, below, h, [gate.signal for gate in self.layers[layer]])
        return LayerTerms(tuple(found.values()), *self._advance(found, h, c))

    def narrowed(self, layer: int, units: NDArray[np.int64]) -> Cells:
        """Return cells of which one layer computes the sums of some units alone."""
        if len(units) == self.layers[layer][0].recurrent.shape[1]:
            return self
        narrow = tuple(gate.narrowed(units) for gate in self.layers[layer])
        return replace(self, layers=(*self.layers[:layer], narrow, *self.layers[layer + 1 :]))

    def gates(
        self, layer: int, below: NDArray[np.int64] | NDArray[np.float32], h: Floats, wanted: Collection[Signal]
    ) -> dict[Signal, GateTerms]:
        """Return some sums of one layer, and those that they need; the arguments are as in `terms`."""
        x = below if layer == 0 else self._operand(layer - 1, below)
        operand = self._operand(layer, h)
        found: dict[Signal, GateTerms] = {}
        for gate in self.layers[layer]:
            if gate.signal not in wanted and not (gate.signal is Signal.RESET and Signal.CANDIDATE in wanted):
                continue
            inputs = gate.input[x] if layer == 0 else x @ gate.input
            if layer == 0 and gate.bias is not None:
                inputs -= gate.bias
            recurrent = operand @ gate.recurrent
            if gate.recurrent_bias is None:
                total = inputs + recurrent
            else:
                total = inputs + found[Signal.RESET].activation * (recurrent + gate.recurrent_bias)
            if gate.bias is not None:
                total += gate.bias
            activation = self._activation(gate, inputs, recurrent, total, found)
            found[gate.signal] = GateTerms(
                gate.signal, inputs, recurrent, gate.bias, gate.recurrent_bias, total, activation
            )
        return found

    def _advance(self, terms: Mapping[Signal, GateTerms], h: Floats, c: Floats | None) -> tuple[Floats, Floats | None]:
        gate = {signal: found.activation for signal, found in terms.items()}
        if self.cell == "elman":
            return gate[Signal.H], None
        if self.cell == "gru":
            z = gate[Signal.UPDATE]
            return (1 - z) * gate[Signal.CANDIDATE] + z * h, None
        assert c is not None
        after = gate[Signal.FORGET] * c + gate[Signal.INPUT] * gate[Signal.CELL]
        if self.table is None:
            return gate[Signal.OUTPUT] * np.tanh(after), after
        parts = (gate[Signal.FORGET], c, gate[Signal.INPUT], gate[Signal.CELL])
        f, before, i, g = (term.astype(np.float32) for term in parts)
        scaled = ((f * before + i * g) / self.table.tanh_step).astype(np.float32)
        return gate[Signal.OUTPUT] * self.table.tanh(scaled), after

    def _activation(
        self, gate: Gate, inputs: Floats, recurrent: Floats, total: Floats, found: Mapping[Signal, GateTerms]
    ) -> Floats:
        """Return tanh or sigmoid of a sum, or what the graph's table has for it."""
        if self.table is None or gate.unit is None:
            return np.tanh(total) if gate.signal in _TANH else _sigmoid(total)
        unit, is_tanh = gate.unit.astype(np.float32), gate.signal in _TANH
        step = self.table.tanh_step if is_tanh else self.table.step
        if gate.recurrent_bias is None:  # a whole number of units
            scaled = np.rint(total / gate.unit).astype(np.float32) * (unit / step)
        else:
            memory = np.rint((recurrent + gate.recurrent_bias) / gate.unit).astype(np.float32) * unit
            x = (inputs if gate.bias is None else inputs + gate.bias).astype(np.float32)
            scaled = (x + found[Signal.RESET].activation.astype(np.float32) * memory) / step
        return self.table.tanh(scaled) if is_tanh else self.table.sigmoid(scaled)

    def logits(self, h: NDArray[np.floating]) -> Floats:
        """Return the logits [T, V] after the last layer's h [T, H]."""
        return self.operand(h) @ self.output_weight + self.output_bias

    def operand(self, h: NDArray[np.floating]) -> Floats:
        """Return the last layer's h as it enters the output's product."""
        return self._operand(len(self.layers) - 1, h)

    def _operand(self, layer: int, h: NDArray[np.generic]) -> Floats:
        """Return a layer's h as it enters products: of an int8 model rounded to its unit."""
        if not self.scales:
            return h.astype(np.float64)
        scale = np.float32(self.scales[layer])
        steps = np.rint(h.astype(np.float32) / scale) + _ZERO_POINT  # the division is float32's, as the graph's
        kept: Floats = np.clip(steps, 0.0, _MAX_OPERAND).astype(np.float64)
        return (kept - _ZERO_POINT) * float(scale)


def read_cells(artefact: Artefact) -> Cells:
    """Return the cells of an artefact.

    Raises:
        AbsentError: its cell is not known, or its weights are not where this project's exporter puts them.
    """
    if artefact.cell not in SUMS:
        raise AbsentError(f"the cell of {artefact.name} is not known: its gates and terms are absent")
    try:
        weights = _Weights(tensors(artefact.step))
        layers = tuple(
            tuple(weights.gate(layer, *names) for names in SUMS[artefact.cell].items())
            for layer in range(artefact.num_layers)
        )
        scales = tuple(weights.scale(layer) for layer in range(artefact.num_layers)) if weights.is_quantized else ()
        output = weights.product("output.weight", "output.weight", artefact.num_layers - 1)
        bias = weights.sum("output.bias", "output.weight")
        return Cells(artefact.cell, layers, scales, output, bias, weights.table())
    except (KeyError, ValueError) as error:
        raise AbsentError(
            f"{artefact.name} does not hold its cell's weights by their usual names: its gates and terms are absent"
        ) from error


class _Weights:
    """Initializers by name, as float64 numbers."""

    def __init__(self, found: Mapping[str, Tensor]) -> None:
        self._found = found
        self.is_quantized = "layer_0.scale" in found

    def gate(self, layer: int, signal: Signal, name: str) -> Gate:
        gate = f"layer_{layer}.{name}"
        is_candidate = signal is Signal.CANDIDATE
        own = f"{gate}.weight_ih" if is_candidate else f"{gate}.weight_hh"  # whose unit the addend is in
        bias: Floats | None
        if layer:
            inputs = self.product(f"{gate}.weight_ih", own, layer - 1)
            bias = self.sum(f"{gate}.bias", own)
        else:
            inputs = self.sum(f"{gate}.table", own)
            bias = self._array(f"{gate}.bias") if f"{gate}.bias" in self._found else None
        recurrent = self.product(f"{gate}.weight_hh", f"{gate}.weight_hh", layer)
        recurrent_bias = self.sum(f"{gate}.bias_hh", f"{gate}.weight_hh") if is_candidate else None
        unit = self._array(f"{gate}.weight_hh.unit") if self.is_quantized else None
        return Gate(signal, inputs, recurrent, bias, recurrent_bias, unit)

    def table(self) -> Table | None:
        if "table.step" not in self._found:
            return None
        names = ("table.step", "tanh.step", "table.level", "tanh.level")
        return Table(*(np.float32(self._array(name)) for name in names))

    def scale(self, layer: int) -> float:
        return float(self._array(f"layer_{layer}.scale"))

    def product(self, name: str, unit: str, layer: int) -> Floats:
        """Return a matrix that multiplies a layer's h."""
        array = self._array(name)
        return array * self._array(f"{unit}.unit") / self.scale(layer) if self.is_quantized else array

    def sum(self, name: str, unit: str) -> Floats:
        """Return what is added to a product."""
        array = self._array(name)
        is_whole = self._found[name].kind != 1
        return array * self._array(f"{unit}.unit") if is_whole else array

    def _array(self, name: str) -> Floats:
        tensor = self._found[name]
        return np.frombuffer(tensor.data, _DTYPES[tensor.kind]).reshape(tensor.shape).astype(np.float64)


def _sigmoid(x: Floats) -> Floats:
    # The two halves of the same function, so that exp never overflows.
    result: Floats = np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
    return result
