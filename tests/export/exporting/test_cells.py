import numpy as np
import onnx
import pytest

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.exporting.cells import GATES, StepGraphs
from elman_export.exporting.reference import reference_step
from elman_format import Metadata
from elman_format.metadata import STATES
from tests.models import CHARACTERS, random_weights

SIZE = len(CHARACTERS)
BATCHES = (1, 2, 7, 64)
# Around what a vector register holds, one unit, and what the lesson has.
SHAPES = [(1, 1), (1, 5), (2, 16), (3, 33), (1, 128)]


def build(cell: str, num_layers: int, hidden_size: int, embedding_size: int = 0) -> Artefact:
    """Step and prefill of random weights."""
    weights = random_weights(cell, num_layers, hidden_size, embedding_size=embedding_size)
    graphs = StepGraphs(cell, weights)
    metadata = Metadata("a", tuple(CHARACTERS), "1", cell, num_layers, hidden_size)
    return Artefact.build(graphs.step(), metadata, graphs.prefill())


def trial(artefact: Artefact, length: int = 64):
    """Characters [T, 64], and states that are not zero."""
    random = np.random.default_rng(1)
    chars = random.integers(0, SIZE, (length, max(BATCHES)))
    states = [random.uniform(-1, 1, (max(BATCHES), *shape)).astype(np.float32) for shape in artefact.state_shapes]
    return chars, states


def walk(runtime: Runtime, chars, state) -> list[np.ndarray]:
    """Logits at every position and the last states, taken step by step."""
    logits = []
    for char in chars:
        scores, state = runtime.step(char, state)
        logits.append(scores)
    return [np.stack(logits), *state]


def read(runtime: Runtime, chars, state, length: int) -> list[np.ndarray]:
    """The same by prefill, `length` positions at a time."""
    logits = []
    for start in range(0, len(chars), length):
        scores, state = runtime.read(chars[start : start + length], state)
        logits.append(scores)
    return [np.concatenate(logits), *state]


def as_bits(arrays) -> list[bytes]:
    """What equality means here."""
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(("num_layers", "hidden_size"), SHAPES)
@pytest.mark.parametrize("cell", GATES)
def test_every_batch_thread_count_and_chunking_gives_the_same_bits(
    cell: str, num_layers: int, hidden_size: int, num_threads: int
):
    """A row's logits and states are those of one thread at batch 64, by steps or by prefill in any chunks."""
    artefact = build(cell, num_layers, hidden_size)
    chars, states = trial(artefact)
    expected = walk(Runtime(artefact), chars, states)
    runtime = Runtime(artefact, num_threads)
    for batch in BATCHES:
        own = [expected[0][:, -batch:], *(state[-batch:] for state in expected[1:])]
        start = [state[-batch:] for state in states]
        assert as_bits(walk(runtime, chars[:, -batch:], start)) == as_bits(own)
        for length in (1, 2, 7, 64):
            assert as_bits(read(runtime, chars[:, -batch:], start, length)) == as_bits(own)


@pytest.mark.parametrize("embedding_size", [0, 8])
@pytest.mark.parametrize("cell", GATES)
def test_the_graph_computes_the_equations(cell: str, embedding_size: int):
    """One step agrees with the equations in float64 to float32's precision, one-hot or embedded (R1)."""
    artefact = build(cell, 2, 16, embedding_size)
    reference = reference_step(cell, random_weights(cell, 2, 16, embedding_size=embedding_size))
    chars, states = trial(artefact, 1)
    actual, after = Runtime(artefact).step(chars[0], states)
    expected, expected_after = reference(chars[0], states)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    for state, expected_state in zip(after, expected_after, strict=True):
        np.testing.assert_allclose(state, expected_state, atol=1e-6)


def test_the_lessons_network_has_the_lessons_shapes():
    """A state of 128 units, 65 characters: W_hy is 65 x 128 and there are 65 logits (R2)."""
    graph = StepGraphs("elman", random_weights("elman", 1, 128)).step().graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert shapes == {
        "layer_0.hidden.table": [65, 128],
        "layer_0.hidden.weight_hh": [128, 128],
        "output.weight": [128, 65],
        "output.bias": [65],
    }
    assert [node.op_type for node in graph.node] == ["Gather", "Gemm", "Tanh", "Gemm"]


@pytest.mark.parametrize("cell", GATES)
def test_there_is_one_state_for_each_layer_and_kind(cell: str):
    """H (and c) of layer 0 come first; nothing is stacked."""
    graph = StepGraphs(cell, random_weights(cell, 2)).step().graph
    expected = [f"state_{index}" for index in range(2 * len(STATES[cell]))]
    assert [value.name for value in graph.input] == ["char", *expected]
    assert [value.name for value in graph.output] == ["logits", *(f"next_{name}" for name in expected)]


@pytest.mark.parametrize("cell", GATES)
def test_both_graphs_are_sound(cell: str):
    """ONNX's own checker finds nothing, with its inference of every shape."""
    artefact = build(cell, 2, 16)
    onnx.checker.check_model(artefact.data, full_check=True)
    assert artefact.prefill is not None
    onnx.checker.check_model(artefact.prefill, full_check=True)


def test_the_prefill_scans_the_recurrent_products_alone():
    """Inside the Scan are one product a gate, and none of them reads the input weights."""
    graph = StepGraphs("lstm", random_weights("lstm", 2)).prefill().graph
    scans = [node for node in graph.node if node.op_type == "Scan"]
    for layer, scan in enumerate(scans):
        body = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
        products = [node.input[1] for node in body.node if node.op_type == "Gemm"]
        assert sorted(products) == sorted(f"layer_{layer}.{gate}.weight_hh" for gate in GATES["lstm"])
    assert len(scans) == 2
