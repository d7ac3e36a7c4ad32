from pathlib import Path

import mpmath
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.exporting import quantized_cells
from elman_export.exporting.cells import GATES, StepGraphs
from elman_export.exporting.quantized_cells import MAX_WEIGHT, QuantizedGraphs
from elman_export.exporting.verify import verify
from elman_format import Metadata
from elman_format.metadata import STATES
from tests.export.exporting.test_cells import BATCHES, as_bits, read, trial, walk
from tests.models import CHARACTERS, quantized_model, random_weights

# What computes the same bits on every machine: integers, conversions, the table, one product or sum of floats a node.
PORTABLE = {"Add", "Concat", "DequantizeLinear", "Gather", "Mul", "QGemm", "QLinearSigmoid", "QuantizeLinear", "Sub"}
SHAPES = [(1, 1), (1, 5), (2, 16), (3, 33), (1, 128)]


def build(cell: str, num_layers: int = 2, hidden_size: int = 16, weights=None) -> Artefact:
    """Step and prefill, int8, of random weights unless they are given."""
    floats = StepGraphs(cell, weights or random_weights(cell, num_layers, hidden_size)).initializers
    graphs = QuantizedGraphs(cell, floats, scales(num_layers))
    return Artefact.build(
        graphs.step(), Metadata("a", tuple(CHARACTERS), "1", cell, num_layers, hidden_size), graphs.prefill()
    )


def scales(num_layers: int) -> list[float]:
    """Another for each layer; the states of a `trial` go beyond them."""
    return [float(np.float32(0.9 / 127 / (layer + 1))) for layer in range(num_layers)]


# The arithmetic, from its equation


def in_bytes(h, scale: float):
    """The integer nearest to h / s, within what eight bits around 128 hold."""
    return np.clip(np.rint(h / np.float32(scale)), -128, 127).astype(np.int64)


def integer_sum(terms, constant, rows):
    """The sum of h W and a constant in integers; terms of (h [B, in], its scale, W [in, N]), rows of the constant."""
    wide = [(in_bytes(h, scale), w.astype(np.float64) * scale) for h, scale, w in terms]
    unit = np.max([np.abs(w).max(axis=0) / 64 for _, w in wide], axis=0).astype(np.float32)
    total = np.rint(constant.astype(np.float32) / unit.astype(np.float64)).astype(np.int64)
    total = total[rows] if rows is not None else total
    for h, w in wide:
        total = total + h @ np.rint(w / unit).astype(np.int64)
    return total.astype(np.float64) * unit


def sigmoid(x):
    """What the table has at the nearest of its 256 places."""
    place = np.clip(np.rint(x / (33 / 512)), -128, 127)
    return np.rint(254 / (1 + np.exp(-33 / 512 * place))) / 254


def tanh(x):
    """The same table, over half the range."""
    return 2 * sigmoid(2 * x) - 1


def reference(cell: str, weights, char, states, after):
    """Logits and next states; each layer reads what the artefact itself has below (`after`)."""
    num_layers, kinds = len(states) // len(STATES[cell]), len(STATES[cell])
    steps, expected = scales(num_layers), []
    for layer in range(num_layers):
        h, below = states[layer * kinds], after[(layer - 1) * kinds]
        x_sums, h_sums = [], []
        for number, gate in enumerate(GATES[cell]):
            part = slice(number * h.shape[1], (number + 1) * h.shape[1])
            w_ih, w_hh, b_ih, b_hh = (
                weights[f"layers.{layer}.{name}"][part].astype(np.float64)
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            recurrent = (h, steps[layer], w_hh.T)
            inputs = [(below, steps[layer - 1], w_ih.T)] if layer else []
            bias, rows = (b_ih + b_hh, None) if layer else (w_ih.T + b_ih + b_hh, char)  # one-hot
            if gate == "candidate":  # r scales W_hh h + b_hh alone
                x_sums.append(integer_sum(inputs, b_ih, None) if layer else (w_ih.T + b_ih)[char])
                h_sums.append(integer_sum([recurrent], b_hh, None))
            else:
                x_sums.append(integer_sum([*inputs, recurrent], bias, rows))
                h_sums.append(0)
        sums = [x + h for x, h in zip(x_sums, h_sums, strict=True)]
        if cell == "elman":
            expected.append(tanh(sums[0]))
        elif cell == "gru":
            n = tanh(x_sums[2] + sigmoid(sums[0]) * h_sums[2])
            expected.append(n + sigmoid(sums[1]) * (h - n))
        else:
            c = sigmoid(sums[1]) * states[layer * kinds + 1] + sigmoid(sums[0]) * tanh(sums[2])
            expected += [sigmoid(sums[3]) * tanh(after[layer * kinds + 1]), c]
    top = (after[-kinds], steps[-1], weights["output.weight"].T)
    return integer_sum([top], weights["output.bias"], None), expected


@pytest.mark.parametrize("hidden_size", [5, 16, 33])
@pytest.mark.parametrize("cell", GATES)
def test_the_graph_computes_the_integers(cell: str, hidden_size: int):
    """One step agrees with the equation in 64-bit integers, float64 and the table, to float32's precision."""
    chars, states = trial(artefact := build(cell, 2, hidden_size), 1)
    logits, after = Runtime(artefact).step(chars[0], states)
    expected, expected_after = reference(cell, random_weights(cell, 2, hidden_size), chars[0], states, after)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for state, expected_state in zip(after, expected_after, strict=True):
        np.testing.assert_allclose(state, expected_state, atol=1e-6)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("cell", GATES)
def test_every_batch_from_1_to_256_gives_the_same_bits(cell: str, num_threads: int):
    """A row is the same in any company, with one thread and with two."""
    artefact = build(cell, 2, 33)
    random = np.random.default_rng(2)
    char = random.integers(0, len(CHARACTERS), 256)
    states = [random.uniform(-1, 1, (256, 33)).astype(np.float32) for _ in artefact.state_shapes]
    logits, after = Runtime(artefact).step(char, states)
    runtime = Runtime(artefact, num_threads)
    for batch in range(1, 257):
        own_logits, own_after = runtime.step(char[-batch:], [state[-batch:] for state in states])
        assert as_bits([own_logits, *own_after]) == as_bits([logits[-batch:], *(state[-batch:] for state in after)])


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(("num_layers", "hidden_size"), SHAPES)
@pytest.mark.parametrize("cell", GATES)
def test_prefill_equals_stepping_bit_for_bit(cell: str, num_layers: int, hidden_size: int, num_threads: int):
    """In chunks of any length, at several batches."""
    artefact = build(cell, num_layers, hidden_size)
    chars, states = trial(artefact, 16)
    runtime = Runtime(artefact, num_threads)
    for batch in BATCHES:
        start = [state[-batch:] for state in states]
        expected = as_bits(walk(runtime, chars[:, -batch:], start))
        for length in (1, 7, 16):
            assert as_bits(read(runtime, chars[:, -batch:], start, length)) == expected


@pytest.mark.parametrize("cell", GATES)
def test_verify_holds_for_int8(cell: str, tmp_path: Path):
    """What `verify` asks of every artefact it finds here, too."""
    verify(read_artefact(quantized_model(tmp_path / "a.onnx", cell, 2)), {}, num_steps=200).require()


# The table


def table():
    """All 256 entries, as onnxruntime computes them."""
    inputs = [numpy_helper.from_array(array, name) for name, array in quantized_cells._TABLE.items()]
    inputs.append(numpy_helper.from_array(np.array(128, np.uint8), "zero_point"))
    names = ["q", "table.step", "zero_point", "table.level", "table.first"]
    node = helper.make_node("QLinearSigmoid", names, ["y"], domain="com.microsoft")
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, [256]) for name in "qy"]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "table", values[:1], values[1:], inputs)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (entries,) = session.run(None, {"q": np.arange(256, dtype=np.uint8)})
    return entries


def test_no_entry_of_the_table_depends_on_a_processors_sigmoid():
    """Each is the nearest integer, and stays it with a hundred times the error of a float32 sigmoid."""
    exact = [254 / (1 + mpmath.exp(mpmath.mpf(-33) * q / 512)) for q in range(-128, 128)]
    assert table().tolist() == [int(mpmath.nint(level)) + 1 for level in exact]
    assert min(abs(level - mpmath.floor(level) - 0.5) for level in exact) > 254 * 4e-5


# The graphs


@pytest.mark.parametrize("cell", GATES)
def test_both_graphs_are_sound(cell: str):
    """ONNX's own checker finds nothing."""
    artefact = build(cell)
    onnx.checker.check_model(artefact.data, full_check=True)
    assert artefact.prefill is not None
    onnx.checker.check_model(artefact.prefill, full_check=True)


@pytest.mark.parametrize("cell", GATES)
def test_every_operator_is_exact_as_onnxruntime_runs_it(cell: str, tmp_path: Path):
    """Its optimiser fuses nothing that would round otherwise, and takes no scale from the batch."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(build(cell).data, options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
    assert operators <= PORTABLE


@pytest.mark.parametrize("cell", GATES)
def test_weights_are_bytes_that_no_processor_saturates_on(cell: str):
    """Two products of an unsigned byte and a weight fit 16 bits, which x86 without VNNI adds them in."""
    initializers = {tensor.name: tensor for tensor in build(cell).step.graph.initializer}
    weights = [tensor for name, tensor in initializers.items() if ".weight" in name and name.count(".") < 3]
    weights = [tensor for tensor in weights if not tensor.name.endswith((".unit", ".zero_point"))]
    assert {tensor.data_type for tensor in weights} == {TensorProto.INT8}
    assert len(weights) == 3 * len(GATES[cell]) + 1
    assert max(int(np.abs(numpy_helper.to_array(tensor)).max()) for tensor in weights) == MAX_WEIGHT
    assert 2 * 255 * MAX_WEIGHT < 2**15


def test_the_prefill_graph_carries_no_weights():
    """It shares the step's by name; what it holds itself is a few numbers."""
    floats = StepGraphs("lstm", random_weights("lstm", 2)).initializers
    prefill = QuantizedGraphs("lstm", floats, scales(2)).prefill()
    assert [tensor.name for tensor in prefill.graph.initializer] == ["rows", "width"]


@pytest.mark.parametrize("cell", GATES)
def test_columns_of_zeros_and_huge_biases_are_held(cell: str):
    """A unit that has no weights is exactly its bias; a bias far beyond its weights overflows nothing."""
    weights = random_weights(cell, 2)
    for name in weights:
        if name.startswith("layers"):
            weights[name][0] = 0
    weights["output.weight"][:2] = 0
    weights["output.bias"][:2] = 1e6, 0
    artefact = build(cell, weights=weights)
    chars, states = trial(artefact, 1)
    logits, after = Runtime(artefact).step(chars[0], states)
    assert all(np.isfinite(state).all() for state in after)
    np.testing.assert_allclose(logits[:, 0], 1e6, rtol=1e-6)
    np.testing.assert_array_equal(logits[:, 1], 0)
