"""Models of one operator each: `h' = operator(2 tanh(h) + table[char])`, at any width."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from elman_export.artefacts.artefact import Artefact, write_artefact
from elman_export.exporting.cells import make_model
from elman_format import Metadata

SYMBOLS = tuple("abcdefghijklmnopqrstuvwxyz")
Arrays = dict[str, Any]  # arrays and NumPy scalars
Build = Callable[[int], tuple[list[NodeProto], Arrays]]


def node(operator: str, inputs: str, output: str = "y", **attributes: Any) -> NodeProto:
    """Return a node; its inputs are words of one string."""
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def _normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def _unary(operator: str, **attributes: Any) -> Build:
    return lambda _: ([node(operator, "x", **attributes)], {})


def _after(first: str, operator: str, add: float = 0.0) -> Build:
    """An operator that wants its numbers in a range."""
    nodes = [node(first, "x", "f"), node("Add", "f add", "a"), node(operator, "a")]
    return lambda _: (nodes, {"add": np.float32(add)})


def _with_row(operator: str) -> Build:
    return lambda width: ([node(operator, "x row")], {"row": _normal(width)})


def _reduction(operator: str) -> Build:
    """Each row times what it was reduced to; of positive numbers."""
    nodes = [node("Abs", "x", "a"), node(operator, "a last", "r"), node("Mul", "x r")]
    return lambda _: (nodes, {"last": np.array([-1])})


def _norm(operator: str, groups: int = 1) -> Build:
    """A normalization, of the whole row or of groups of it; an odd width is one group."""

    def build(width: int) -> tuple[list[NodeProto], Arrays]:
        parts = groups if width % groups == 0 else 1
        size = parts if groups > 1 else width
        arrays = {"g": _normal(size), "b": _normal(size), "cut": np.array([0, parts, -1]), "whole": np.array([0, -1])}
        if groups == 1:
            return [node(operator, "x g b")], arrays
        return [node("Reshape", "x cut", "p"), node(operator, "p g b", "n"), node("Reshape", "n whole")], arrays

    return build


def _rms(_: int) -> tuple[list[NodeProto], Arrays]:
    nodes = [
        node("Mul", "x x", "q"),
        node("ReduceMean", "q last", "m"),
        node("Add", "m small", "p"),
        node("Sqrt", "p", "s"),
        node("Div", "x s"),
    ]
    return nodes, {"last": np.array([-1]), "small": np.float32(1e-5)}


def _mamba(width: int) -> tuple[list[NodeProto], Arrays]:
    """The heart of a Mamba step: a softplus, a decay, a gated input."""
    nodes = [
        node("MatMul", "x w", "d"),
        node("Softplus", "d", "dt"),
        node("Mul", "dt row", "a"),
        node("Exp", "a", "decay"),
        node("Mul", "decay x", "kept"),
        node("Sigmoid", "x", "gate"),
        node("Mul", "x gate", "silu"),
        node("Mul", "dt silu", "new"),
        node("Add", "kept new"),
    ]
    return nodes, {"w": _normal(width, width) / np.float32(np.sqrt(width)), "row": -np.abs(_normal(width))}


def _log_sum_exp(_: int) -> tuple[list[NodeProto], Arrays]:
    """One logarithm a row: a normaliser in log space, as of xLSTM and minGRU."""
    nodes = [node("Exp", "x", "p"), node("ReduceSum", "p last", "s"), node("Log", "s", "l"), node("Sub", "x l")]
    return nodes, {"last": np.array([-1])}


_UNARY = (
    "Abs", "Asinh", "Ceil", "Cosh", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "LogSoftmax", "Neg", "Relu", "Round", "Sigmoid", "Sign", "Sinh", "Softmax", "Softsign", "Tan", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
_REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare", "ReduceL1",
    "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip
_CUT: dict[str, Build] = {
    **{name: _unary(name) for name in ("Softplus", "Elu", "Selu", "Celu", "Mish", "Sin", "Cos", "Atan")},
    **{name: _after("Tanh", name) for name in ("Asin", "Acos")},
    "Log": _after("Abs", "Log", 0.01),
    "Mamba": _mamba,
    "LogSumExp": _log_sum_exp,
}
_SAFE: dict[str, Build] = {
    **{name: _unary(name) for name in _UNARY},
    "GeluTanh": _unary("Gelu", approximate="tanh"),
    "Atanh": _after("Tanh", "Atanh"),
    "Acosh": _after("Abs", "Acosh", 1),
    "Sqrt": _after("Abs", "Sqrt"),
    "Reciprocal": _after("Abs", "Reciprocal", 0.1),
    **{name: _with_row(name) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu")},
    **{name: _reduction(name) for name in _REDUCTIONS},
    "SiLU": lambda _: ([node("Sigmoid", "x", "s"), node("Mul", "x s")], {}),
    "QuickGelu": lambda _: (
        [node("Mul", "x k", "a"), node("Sigmoid", "a", "s"), node("Mul", "x s")],
        {"k": np.float32(1.702)},
    ),
    "Pow": lambda _: ([node("Abs", "x", "a"), node("Pow", "a k")], {"k": np.float32(1.7)}),
    "Square": lambda _: ([node("Pow", "x k")], {"k": np.float32(2)}),
    "CumSum": lambda _: ([node("CumSum", "x axis")], {"axis": np.int64(1)}),
    "MatMul": lambda width: ([node("MatMul", "x w")], {"w": _normal(width, width)}),
    "Gemm": lambda width: ([node("Gemm", "x w b", transB=1)], {"w": _normal(width, width), "b": _normal(width)}),
    "LayerNormalization": _norm("LayerNormalization"),
    "InstanceNormalization": _norm("InstanceNormalization", groups=2),
    "RMSNorm": _rms,
}
CUT_OPERATORS, SAFE_OPERATORS = tuple(_CUT), tuple(_SAFE)


def operator_model(path: Path, operator: str, width: int) -> Artefact:
    """Write a model of one operator; return what the exporter makes of it."""
    nodes, arrays = (_CUT | _SAFE)[operator](width)
    return step_model(
        path, [node("Tanh", "state_0", "t"), node("Mul", "t two", "h"), node("Add", "h e", "x"), *nodes], width, arrays
    )


def soft_model(path: Path, width: int = 1024) -> Artefact:
    """Write the network in which 17 sessions once read several texts: h' = tanh(W2 (softplus(W1 h + E x) - ln 2))."""
    nodes = [
        node("MatMul", "state_0 w1", "a"),
        node("Add", "a e", "b"),
        node("Softplus", "b", "s"),
        node("Sub", "s ln2", "c"),
        node("MatMul", "c w2", "d"),
        node("Tanh", "d", "y"),
    ]
    random = np.random.default_rng(0)
    bound = 3.46 / np.sqrt(width)  # a uniform start, as torch's, 3.46 times as wide
    w1, w2 = (random.uniform(-bound, bound, (width, width)).astype(np.float32) for _ in range(2))
    return step_model(path, nodes, width, {"w1": w1, "w2": w2, "ln2": np.float32(np.log(2))}, from_state=True)


def step_model(path: Path, nodes: list[NodeProto], width: int, arrays: Arrays, *, from_state: bool = False) -> Artefact:
    """Write a model from the nodes between e, a row of a table for each character, and y, the next state.

    Args:
        path: The file.
        nodes: What is computed.
        width: Of the state.
        arrays: The constants.
        from_state: The logits are of the next state; else of the character alone.
    """
    random = np.random.default_rng(1)
    constants = arrays | {
        "table": random.normal(size=(len(SYMBOLS), width)).astype(np.float32),
        "out": random.normal(size=(width, len(SYMBOLS))).astype(np.float32) / np.float32(np.sqrt(width)),
        "two": np.float32(2),
    }
    graph = helper.make_graph(
        [
            node("Gather", "table char", "e", axis=0),
            *nodes,
            node("Identity", "y", "next_state_0"),
            node("MatMul", "y out" if from_state else "e out", "logits"),
        ],
        "step",
        [
            helper.make_tensor_value_info("char", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("state_0", TensorProto.FLOAT, ["batch", width]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(SYMBOLS)]),
            helper.make_tensor_value_info("next_state_0", TensorProto.FLOAT, ["batch", width]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return write_artefact(path, make_model(graph), Metadata(path.stem, SYMBOLS))
