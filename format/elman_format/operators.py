"""Which operators a graph holds, and which of them round an element alike wherever threads cut their work.

onnxruntime divides the elements of some operators, [B·H] of them, among its threads. Eigen computes four elements at a
time and those beside a cut one by one, by another routine: Softplus, Log and their like differ by 1e-7 there, and the
cuts depend on the batch. `docs/decisions/0015-threads-and-rows.md` has what was measured.
"""

from collections.abc import Iterator

from elman_format.graph import Field
from elman_format.wire import messages

# Measured at widths that are and are not multiples of 4, with 1, 2 and 4 threads, alone and as onnxruntime fuses them;
# or they move numbers and compute none. What is not here runs with one thread: right, and slower at the worst.
CUT_SAFE = frozenset({
    "Abs", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asinh", "Atanh", "BatchNormalization", "Cast", "CastLike",
    "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Cosh", "CumSum", "DequantizeLinear", "Div", "Einsum",
    "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "If", "InstanceNormalization",
    "IsInf", "IsNaN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "LogSoftmax", "Loop",
    "LpNormalization", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "Max", "Mean", "Min", "Mod", "Mul", "Neg",
    "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QGemm", "QLinearSigmoid", "QuantizeLinear", "QuickGelu", "RNN",
    "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "Scan", "ScatterElements",
    "ScatterND", "Shape", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "Sinh", "Size", "Slice", "Softmax",
    "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
})  # fmt: skip


def operators(model: bytes) -> frozenset[str]:
    """The names of all operators of a model, those inside others too."""
    return frozenset(name for graph in messages(model, Field.MODEL_GRAPH) for name in _operators(graph))


def _operators(graph: memoryview) -> Iterator[str]:
    for node in messages(graph, Field.GRAPH_NODE):
        for name in messages(node, Field.NODE_OPERATOR):
            yield str(name, "utf-8", "replace")
        for attribute in messages(node, Field.NODE_ATTRIBUTE):
            for number in (Field.ATTRIBUTE_GRAPH, Field.ATTRIBUTE_GRAPHS):
                for inner in messages(attribute, number):
                    yield from _operators(inner)
