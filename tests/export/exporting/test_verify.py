import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.errors import ArtefactError, DifferenceError
from elman_export.exporting.cells import GATES, StepGraphs, make_model
from elman_export.exporting.reference import Step, reference_step
from elman_export.exporting.report import PREFILL, ROWS
from elman_export.exporting.verify import MAX_LOGITS, TOLERANCE, verify
from elman_format import Metadata
from elman_format.layout import BATCHES
from tests.models import CHARACTERS, random_weights, tiny_model
from tests.operators import operator_model


def other(nodes, width: int = 1, **weights) -> Artefact:
    """An artefact of cell `other` from nodes and weights, its state [batch, width]."""
    graph = helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("char", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("state_0", TensorProto.FLOAT, ["batch", width]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 65]),
            helper.make_tensor_value_info("next_state_0", TensorProto.FLOAT, ["batch", width]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return Artefact.build(make_model(graph), Metadata("a", tuple(CHARACTERS)))


def differences(report, against: str) -> dict[int, float]:
    """Batch to difference."""
    return {finding.batch: finding.difference for finding in report.findings if finding.against == against}


@pytest.mark.parametrize("cell", GATES)
def test_a_true_artefact_passes(cell: str, tmp_path: Path):
    """Over 1,000 steps it agrees with the equations, and with itself in every bit (R1)."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", cell))
    report = verify(artefact, {"NumPy": reference_step(cell, random_weights(cell))})
    report.require()
    assert differences(report, ROWS) == dict.fromkeys(BATCHES, 0.0)
    assert differences(report, PREFILL) == dict.fromkeys(BATCHES, 0.0)
    assert max(differences(report, "NumPy").values()) < 1e-6


def test_left_alone_for_1000_steps_a_calm_network_stays_close(tmp_path: Path):
    """Where small differences die out, two implementations agree to 1e-6 after 1,000 own steps (R1)."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", "gru"))
    report = verify(artefact, {"NumPy": reference_step("gru", random_weights("gru"))})
    assert differences(report, "NumPy, left alone")[1] < 1e-6


def test_another_weight_is_found(tmp_path: Path):
    """A hundredth on one bias is far beyond the tolerance."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))
    weights = random_weights("gru")
    weights["layers.0.bias_hh"][3] += 0.01
    report = verify(artefact, {"NumPy": reference_step("gru", weights)}, num_steps=50)
    assert min(differences(report, "NumPy").values()) > 10 * TOLERANCE
    with pytest.raises(DifferenceError, match="differs from NumPy by"):
        report.require()


def test_what_float32_costs_is_allowed_and_no_more(tmp_path: Path):
    """Sources that differ by their precision widen the tolerance; sources that contradict one another do not."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))
    step = reference_step("gru", random_weights("gru"))

    def shifted(by: float) -> Step:
        def source(char, state):
            logits, after = step(char, state)
            return logits + by * max(1.0, np.abs(logits).max()), after

        return source

    assert not verify(artefact, {"far": shifted(3e-5)}, num_steps=10).to_json()["passed"]
    verify(artefact, {"near": step, "far": shifted(3e-5)}, num_steps=10).require()
    with pytest.raises(DifferenceError, match="allowed is 1e-04"):
        verify(artefact, {"near": step, "wrong": shifted(3e-4)}, num_steps=10).require()


def test_another_shape_is_found(tmp_path: Path):
    """A source with other logits differs infinitely rather than failing."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))

    def source(char, state):
        return np.zeros((len(char), 64)), list(state)

    report = verify(artefact, {"wrong": source}, num_steps=3)
    with pytest.raises(DifferenceError, match="differs from wrong by inf"):
        report.require()


def test_another_prefill_is_found():
    """A prefill graph with two gates exchanged differs from stepping."""
    graphs = StepGraphs("gru", random_weights("gru"))
    prefill = graphs.prefill()
    for node in prefill.graph.node:
        if node.op_type == "Scan":
            node.input[1], node.input[2] = node.input[2], node.input[1]
    metadata = Metadata("a", tuple(CHARACTERS), "1", "gru", 1, 16)
    report = verify(Artefact.build(graphs.step(), metadata, prefill), {}, num_steps=10)
    with pytest.raises(DifferenceError, match="differs from itself, prefill by"):
        report.require()


def test_rows_that_see_one_another_are_found():
    """A mean over the batch gives other rows in other company."""
    artefact = other(
        [
            helper.make_node("Gather", ["table", "char"], ["logits"]),
            helper.make_node("ReduceMean", ["logits"], ["mean"], keepdims=1),
            helper.make_node("Add", ["state_0", "mean"], ["next_state_0"]),
        ],
        table=np.random.default_rng(0).normal(size=(65, 65)).astype(np.float32),
    )
    with pytest.raises(DifferenceError, match="rows must be independent"):
        verify(artefact, {}, num_steps=10).require()


def test_values_that_are_not_finite_are_found():
    """Infinite logits cannot be sampled from."""
    artefact = other(
        [
            helper.make_node("Gather", ["table", "char"], ["logits"]),
            helper.make_node("Identity", ["state_0"], ["next_state_0"]),
        ],
        table=np.full((65, 65), -np.inf, np.float32),
    )
    with pytest.raises(DifferenceError, match="not finite"):
        verify(artefact, {}, num_steps=10).require()


def test_the_rnn_operator_agrees_in_twos():
    """What differs for a single row only is computed twice, as the server does, and the report says so."""
    size = 16
    random = np.random.default_rng(0)
    artefact = other(
        [
            helper.make_node("Gather", ["table", "char"], ["x"]),
            helper.make_node("Unsqueeze", ["x", "front"], ["xs"]),
            helper.make_node("Unsqueeze", ["state_0", "front"], ["h"]),
            helper.make_node("RNN", ["xs", "w", "r", "b", "", "h"], ["", "next_h"], hidden_size=size),
            helper.make_node("Squeeze", ["next_h", "front"], ["next_state_0"]),
            helper.make_node("Gemm", ["next_state_0", "out"], ["logits"]),
        ],
        width=size,
        front=np.array([0]),
        table=random.normal(size=(65, size)).astype(np.float32),
        w=random.normal(size=(1, size, size)).astype(np.float32),
        r=random.normal(size=(1, size, size)).astype(np.float32),
        b=random.normal(size=(1, 2 * size)).astype(np.float32),
        out=random.normal(size=(size, 65)).astype(np.float32),
    )
    report = verify(artefact, {}, num_steps=100)
    report.require()
    assert differences(report, ROWS) == dict.fromkeys(BATCHES, 0.0)
    assert [note[:48] for note in report.notes] == ["Each row is computed 1 times and a batch has a m"]


@pytest.mark.parametrize(("width", "note"), [(32, ""), (30, "2 times and a batch has"), (33, "4 times")])
def test_a_mean_of_an_odd_width_agrees_where_rows_lie_apart(tmp_path: Path, width: int, note: str):
    """Where a row begins decides how its mean rounds: it is computed as often as needed, and the report says so."""
    report = verify(operator_model(tmp_path / "rms.onnx", "RMSNorm", width), {}, num_steps=20)
    report.require()
    assert bool(report.notes) == bool(note)
    assert note in "".join(report.notes)


def test_a_graph_that_cannot_run_is_refused():
    """What onnxruntime has to say becomes one sentence."""
    artefact = other(
        [
            helper.make_node("Gather", ["table", "char"], ["logits"]),
            helper.make_node("Reshape", ["state_0", "shape"], ["next_state_0"]),
        ],
        table=np.zeros((65, 65), np.float32),
        shape=np.array([3, 1]),
    )
    with pytest.raises(ArtefactError, match="onnxruntime cannot run the artefact"):
        verify(artefact, {}, num_steps=1)


def test_a_graph_that_cannot_be_loaded_is_refused():
    """Types that do not fit pass ONNX's checker but not onnxruntime."""
    artefact = other(
        [
            helper.make_node("Gather", ["table", "char"], ["logits"]),
            helper.make_node("Add", ["state_0", "integer"], ["next_state_0"]),
        ],
        table=np.zeros((65, 65), np.float32),
        integer=np.array([1]),
    )
    with pytest.raises(ArtefactError, match="onnxruntime cannot load the artefact"):
        verify(artefact, {}, num_steps=1)


def test_a_report_is_json(tmp_path: Path):
    """Infinity and NaN become null; every finding says whether it passed."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))

    def source(char, state):
        return np.full((len(char), 65), np.nan), list(state)

    report = verify(artefact, {"bad": source}, num_steps=3).to_json()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    bad = next(finding for finding in report["findings"] if finding["against"] == "bad")
    assert (report["passed"], bad["difference"], bad["passed"]) == (False, None, False)


def test_a_large_vocabulary_is_read_in_short_chunks(tmp_path: Path):
    """However many symbols there are, no source returns more than MAX_LOGITS numbers at a time."""
    size = 4096
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", vocabulary=[chr(0x4E00 + i) for i in range(size)]))
    runtime = Runtime(artefact)
    rows: list[int] = []

    def source(char, state):
        rows.append(len(char))
        return runtime.step(char, state)

    verify(artefact, {"itself": source}, num_steps=20).require()
    assert MAX_LOGITS // 2 < max(rows) * size <= MAX_LOGITS
