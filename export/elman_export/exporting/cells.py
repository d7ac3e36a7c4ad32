"""The step of the known cells as ONNX graphs, written node by node.

One matrix per gate, so the graph reads like the equations (those of `torch.nn.RNN`, `GRU` and
`LSTM`), no slice is ever copied, and it is as fast as any arrangement that was measured.

Two graphs share one set of weights by name: the *step* reads one character per row, the *prefill*
reads many. The prefill scans layer by layer, one input product over all positions and then a `Scan`
that holds only the recurrent products, with the very same operators: it equals stepping bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from elman_format.metadata import STATES

Weights = Mapping[str, NDArray[np.float32]]
Initializers = Mapping[str, NDArray[Any]]

# Gates in PyTorch's order: the rows of `weight_ih` and `weight_hh` are stacked so.
GATES = {
    "elman": ("hidden",),
    "gru": ("reset", "update", "candidate"),
    "lstm": ("input", "forget", "cell", "output"),
}

# The oldest pair that has every operator used here and by traced modules.
OPSET, IR_VERSION = 20, 10


def make_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """Wrap a graph into a model of this project's operator set and IR version."""
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


class CellGraphs:
    """Builds both graphs of one network from initializers.

    Args:
        cell: `elman`, `gru` or `lstm`.
        initializers: The weights of both graphs, by name: for gate g of layer l `layer_{l}.{g}.weight_hh` [H, H], and
            `.table` [V, H] in layer 0, `.weight_ih` [H, H] and `.bias` [H] above; of the candidate also `.bias_hh` [H];
            `output.weight` [H, V] and `output.bias` [V].

    Attributes:
        initializers: The same.
    """

    def __init__(self, cell: str, initializers: Initializers) -> None:
        self._cell = cell
        self._num_layers = sum(name.endswith(f".{GATES[cell][0]}.weight_hh") for name in initializers)
        self._hidden_size, self._vocabulary_size = initializers["output.weight"].shape
        self.initializers = initializers

    def step(self) -> onnx.ModelProto:
        """The main graph, weights included: char [B], state_i [B, H] to logits [B, V]."""
        ops = Ops("step")
        x = "char"
        for layer in range(self._num_layers):
            inputs, below = self._step_inputs(ops, layer, x)
            states = self._state_names(layer), self._state_names(layer, "next_")
            x = self._advance(ops, layer, inputs, *states, below=below)
        self._product(ops, self._operand(ops, self._num_layers - 1, x), "output.weight", "output.bias", out="logits")
        return self._model(ops, ["batch"])

    def prefill(self) -> onnx.ModelProto:
        """The prefill graph without the shared weights: char [T, B] to logits [T, B, V]."""
        ops = Ops("prefill")
        ops.constants["rows"] = np.array([-1, self._hidden_size], np.int64)
        ops.constants["width"] = np.array([-1], np.int64)
        # [T, B, -1]: what a product over T*B rows is folded back into.
        shape = ops.add("Concat", ops.add("Shape", "char"), "width", axis=0)
        x = "char"
        for layer in range(self._num_layers):
            inputs = self._inputs(ops, layer, x)
            if layer > 0:
                inputs = {gate: ops.add("Reshape", y, shape) for gate, y in inputs.items()}
            x = ops.add("Reshape", self._scan(ops, layer, inputs), "rows")
        logits = self._product(ops, self._operand(ops, self._num_layers - 1, x), "output.weight", "output.bias")
        ops.add("Reshape", logits, shape, out="logits")
        model = self._model(ops, ["time", "batch"])
        del model.graph.initializer[: len(self.initializers)]
        return model

    def _inputs(self, ops: "Ops", layer: int, x: str) -> dict[str, str]:
        """W_ih x + b for every gate; in layer 0 a row of a table, for x is one character."""
        if layer == 0:
            return {gate: ops.add("Gather", f"layer_0.{gate}.table", x, axis=0) for gate in GATES[self._cell]}
        operand = self._operand(ops, layer - 1, x)
        return {gate: self._input_product(ops, operand, f"layer_{layer}.{gate}") for gate in GATES[self._cell]}

    # Overridden by quantized graphs

    def _step_inputs(self, ops: "Ops", layer: int, x: str) -> tuple[dict[str, str], str]:
        """The addend of every gate's recurrent product in a step, and the further operand of `_recurrent`."""
        return self._inputs(ops, layer, x), ""

    def _recurrent(self, ops: "Ops", layer: int, h: str, below: str) -> dict[str, tuple[str, str]]:  # noqa: ARG002
        """Operand and weight of every gate's recurrent product."""
        operand = self._operand(ops, layer, h)
        return {gate: (operand, f"layer_{layer}.{gate}.weight_hh") for gate in GATES[self._cell]}

    def _operand(self, ops: "Ops", layer: int, h: str) -> str:  # noqa: ARG002  # overridden
        """A layer's h as the operand of products."""
        return h

    def _product(self, ops: "Ops", operand: str, weight: str, addend: str, out: str = "") -> str:
        """The sum ``operand @ weight + addend``, in float32."""
        return ops.add("Gemm", operand, weight, addend, out=out)

    def _input_product(self, ops: "Ops", operand: str, gate: str) -> str:
        """W_ih x + b of one gate, as `_product` takes it for its addend."""
        return self._product(ops, operand, f"{gate}.weight_ih", f"{gate}.bias")

    def _activated_sum(self, ops: "Ops", kind: str, terms: tuple[str, str, str], out: str) -> str:
        """`Sigmoid` or `Tanh` of the sum of a `_product`."""
        return ops.add(kind, self._product(ops, *terms), out=out)

    def _tanh(self, ops: "Ops", x: str) -> str:
        """`Tanh` of a float32 tensor."""
        return ops.add("Tanh", x)

    def _addend_type(self, gate: str) -> int:  # noqa: ARG002  # overridden
        """The element type of a gate's W_ih x + b."""
        return TensorProto.FLOAT

    # The cells

    def _advance(
        self,
        ops: "Ops",
        layer: int,
        inputs: Mapping[str, str],
        state: Sequence[str],
        next_state: Sequence[str],
        *,
        below: str = "",
    ) -> str:
        """One layer's equations, from its inputs and state to its next state; returns h'."""
        h = state[0]
        recurrent = self._recurrent(ops, layer, h, below)

        def gate(name: str, kind: str = "Sigmoid", out: str = "") -> str:
            return self._activated_sum(ops, kind, (*recurrent[name], inputs[name]), out)

        if self._cell == "elman":
            return gate("hidden", "Tanh", out=next_state[0])
        if self._cell == "gru":
            memory = self._product(ops, *recurrent["candidate"], f"layer_{layer}.candidate.bias_hh")
            reset = ops.add("Mul", gate("reset"), memory)
            n = self._tanh(ops, ops.add("Add", inputs["candidate"], reset))
            # h' = (1 - z) n + z h, with one product less: n + z (h - n)
            kept = ops.add("Mul", gate("update"), ops.add("Sub", h, n))
            return ops.add("Add", n, kept, out=next_state[0])
        kept = ops.add("Mul", gate("forget"), state[1])
        added = ops.add("Mul", gate("input"), gate("cell", "Tanh"))
        c = ops.add("Add", kept, added, out=next_state[1])
        return ops.add("Mul", gate("output"), self._tanh(ops, c), out=next_state[0])

    def _scan(self, ops: "Ops", layer: int, inputs: Mapping[str, str]) -> str:
        """One layer over all positions; returns its h at each of them, [T, B, H]."""
        body = Ops(f"layer_{layer}.scan")
        kinds = STATES[self._cell]
        state = [f"layer_{layer}.scan.{kind}" for kind in kinds]
        next_state = [f"layer_{layer}.scan.next_{kind}" for kind in kinds]
        xs = {gate: f"layer_{layer}.scan.{gate}" for gate in inputs}
        self._advance(body, layer, xs, state, next_state)
        output = body.add("Identity", next_state[0])
        row = ["batch", self._hidden_size]
        graph = helper.make_graph(
            body.nodes,
            f"layer_{layer}",
            [
                *(value_info(name, row) for name in state),
                *(value_info(name, row, self._addend_type(gate)) for gate, name in xs.items()),
            ],
            [value_info(name, row) for name in [*next_state, output]],
        )
        every_h = f"layer_{layer}.every_h"
        ops.nodes.append(
            helper.make_node(
                "Scan",
                [*self._state_names(layer), *inputs.values()],
                [*self._state_names(layer, "next_"), every_h],
                body=graph,
                num_scan_inputs=len(inputs),
            )
        )
        return every_h

    def _state_names(self, layer: int, prefix: str = "") -> list[str]:
        num_kinds = len(STATES[self._cell])
        return [f"{prefix}state_{layer * num_kinds + kind}" for kind in range(num_kinds)]

    def _model(self, ops: "Ops", positions: list[str | int]) -> onnx.ModelProto:
        row: list[str | int] = ["batch", self._hidden_size]
        layers = range(self._num_layers)
        return make_model(
            helper.make_graph(
                ops.nodes,
                ops.name,
                [
                    value_info("char", positions, TensorProto.INT64),
                    *(value_info(name, row) for i in layers for name in self._state_names(i)),
                ],
                [
                    value_info("logits", [*positions, self._vocabulary_size]),
                    *(value_info(name, row) for i in layers for name in self._state_names(i, "next_")),
                ],
                _tensors(self.initializers) + _tensors(ops.constants),
            )
        )


class StepGraphs(CellGraphs):
    """Builds both graphs of one network in float32.

    Args:
        cell: `elman`, `gru` or `lstm`.
        weights: `embedding.weight` [V, E] (absent: one-hot), `layers.{l}.weight_ih` [G*H, in],
            `layers.{l}.weight_hh` [G*H, H], `layers.{l}.bias_ih` and `layers.{l}.bias_hh` [G*H],
            `output.weight` [V, H] and `output.bias` [V].
    """

    def __init__(self, cell: str, weights: Weights) -> None:
        num_layers = sum(name.endswith(".weight_hh") for name in weights)
        super().__init__(cell, _fold(cell, num_layers, weights))


class Ops:
    """Nodes in order, each with a unique name for its output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.int64]] = {}

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Append one operator with one output; returns the output's name."""
        out = out or f"{self.name}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out


def value_info(name: str, shape: Sequence[str | int], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """One input or output; a free dimension is a name."""
    return helper.make_tensor_value_info(name, kind, shape)


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _fold(cell: str, num_layers: int, weights: Weights) -> dict[str, NDArray[np.float32]]:
    """Weights as the graphs hold them: per gate, transposed to [in, H], sums taken in float64."""
    folded: dict[str, NDArray[np.float64]] = {}
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    for layer in range(num_layers):
        parts = zip(
            GATES[cell],
            *(
                np.split(wide[f"layers.{layer}.{name}"], len(GATES[cell]))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ),
            strict=True,
        )
        for gate, weight_ih, weight_hh, bias_ih, bias_hh in parts:
            prefix = f"layer_{layer}.{gate}"
            bias = bias_ih + bias_hh
            if gate == "candidate":  # the reset gate scales W_hh h + b_hh, not b_ih
                bias, folded[f"{prefix}.bias_hh"] = bias_ih, bias_hh
            if layer == 0:  # one row per character: W_ih e(character) + b
                embedding = wide.get("embedding.weight", np.eye(weight_ih.shape[1]))
                folded[f"{prefix}.table"] = embedding @ weight_ih.T + bias
            else:
                folded[f"{prefix}.weight_ih"] = weight_ih.T
                folded[f"{prefix}.bias"] = bias
            folded[f"{prefix}.weight_hh"] = weight_hh.T
    folded["output.weight"] = wide["output.weight"].T
    folded["output.bias"] = wide["output.bias"]
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in folded.items()}
