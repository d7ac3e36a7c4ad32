"""Which operators a graph holds, and which of them round an element alike wherever threads cut their work.

onnxruntime divides the elements of some operators, [B·H] of them, among its threads. Eigen computes four elements at a
time and those beside a cut one by one, by another routine: Softplus, Log and their like differ by 1e-7 there, and the
cuts depend on the batch. `docs/decisions/0014-threads-and-rows.md` has what was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elman_format import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

# Measured at widths that are and are not multiples of 4, with 1, 2 and 4 threads, alone and as onnxruntime fuses them;
# or they move numbers and compute none. What is not here runs with one thread: right, and slower at the worst.
CUT_SAFE: Final = frozenset({
    "Abs", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asinh", "Atanh", "BatchNormalization", "Cast", "CastLike",
    "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Cosh", "CumSum", "DequantizeLinear", "Div", "Einsum",
    "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "If",
    "InstanceNormalization", "IsInf", "IsNaN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual",
    "LogSoftmax", "Loop", "LpNormalization", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "Max", "Mean",
    "Min", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QGemm", "QuantizeLinear",
    "QuickGelu", "RNN", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape",
    "Round", "Scan", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign", "SimplifiedLayerNormalization",
    "Sinh", "Size", "Slice", "Softmax", "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh",
    "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
})  # fmt: skip

_MODEL_GRAPH: Final = 7
_GRAPH_NODE: Final = 1
_NODE_OPERATOR, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_GRAPHS: Final = (6, 11)


def operators(model: bytes) -> frozenset[str]:
    """Return the names of all operators of a model, those inside others too."""
    return frozenset(name for graph in wire.messages(model, _MODEL_GRAPH) for name in _operators(graph))


def _operators(graph: memoryview) -> Iterator[str]:
    for node in wire.messages(graph, _GRAPH_NODE):
        for name in wire.messages(node, _NODE_OPERATOR):
            yield str(name, "utf-8", "replace")
        for attribute in wire.messages(node, _NODE_ATTRIBUTE):
            for number in _ATTRIBUTE_GRAPHS:
                for inner in wire.messages(attribute, number):
                    yield from _operators(inner)
