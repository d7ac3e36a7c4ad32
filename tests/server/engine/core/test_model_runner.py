"""A loaded model against its equations, and what is refused at loading."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from elman_export.artefacts.artefact import write_artefact
from elman_export.exporting.cells import make_model
from elman_export.exporting.reference import Step, reference_step
from elman_format import Metadata
from elman_server.domain.errors import ArtefactError
from elman_server.domain.state import SessionState
from elman_server.engine.core.model_runner import ModelRunner, choose_threads
from elman_server.models.artefact import Artefact, read_artefact
from tests.models import CHARACTERS, random_weights, tiny_model

Chars = NDArray[np.int64]

CELLS = ("elman", "gru", "lstm")
SIZE = len(CHARACTERS)
TABLE = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32)


def load(artefact: Artefact, *, capacity: int = 8, num_threads: int = 1) -> ModelRunner:
    """Load an artefact for a few rows."""
    return ModelRunner(artefact, capacity=capacity, num_threads=num_threads)


def other(
    path: Path, nodes: list[Any], initializers: Mapping[str, NDArray[Any]] | None = None, width: int = 1
) -> Artefact:
    """Write and read a model of cell `other` with one state of that size."""
    graph = helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("char", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("state_0", TensorProto.FLOAT, ["batch", width]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", SIZE]),
            helper.make_tensor_value_info("next_state_0", TensorProto.FLOAT, ["batch", width]),
        ],
        [numpy_helper.from_array(array, name) for name, array in ({"table": TABLE} | dict(initializers or {})).items()],
    )
    write_artefact(path, make_model(graph), Metadata("other", tuple(CHARACTERS)))
    return read_artefact(path)


def lookup(out: str = "logits") -> Any:
    """Return the node that gives each character its own logits."""
    return helper.make_node("Gather", ["table", "char"], [out], axis=0)


KEEP = helper.make_node("Identity", ["state_0"], ["next_state_0"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Artefact:
    """A model of two layers."""
    return read_artefact(tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.onnx", "gru", 2, 8))


def steps(model: ModelRunner, chars: Chars) -> tuple[NDArray[np.float32], list[tuple[bytes, ...]]]:
    """Step rows from the beginning: chars [T, B] to logits [T, B, V] and the rows' states."""
    batch = chars.shape[1]
    for row in range(batch):
        model.load_row(row, model.initial.tensors)
    logits = []
    for column in chars:
        model.chars[:batch] = column
        logits.append(model.step(batch).copy())
    return np.stack(logits), [model.save_row(row) for row in range(batch)]


def states_of(model: ModelRunner, batch: int) -> list[NDArray[np.float32]]:
    """Return the states of the first rows, [B, H] each."""
    return model.rows([SessionState(model.save_row(row)) for row in range(batch)])


def check_steps(model: ModelRunner, reference: Step, chars: Chars, tolerance: float) -> None:
    """Compare every step with the equations, from where the model was: what is chaotic hides no error then."""
    batch = chars.shape[1]
    for row in range(batch):
        model.load_row(row, model.initial.tensors)
    for column in chars:
        expected, following = reference(column, states_of(model, batch))
        model.chars[:batch] = column
        assert np.abs(model.step(batch) - expected).max() < tolerance
        for actual, state in zip(states_of(model, batch), following, strict=True):
            assert np.abs(actual - state).max() < tolerance


def chars_of(num_steps: int, batch: int) -> Chars:
    """Return characters, [T, B]."""
    return np.random.default_rng(num_steps).integers(0, SIZE, (num_steps, batch))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_step_is_the_equations(tmp_path, cell, batch):
    """R1 and R2: what the server computes is h' = tanh(W_hh h + W_xh x + b) and its like, and y = W_hy h + b."""
    path = tiny_model(tmp_path / "model.onnx", cell, 2, 24, seed=5)
    reference = reference_step(cell, random_weights(cell, 2, 24, seed=5))
    check_steps(load(read_artefact(path)), reference, chars_of(1000, batch), 1e-5)


def test_a_model_holds_no_more_rows_than_it_was_given(tmp_path):
    """The capacity that admits streams is the one that was asked for, even one."""
    assert load(read_artefact(tiny_model(tmp_path / "tiny.onnx")), capacity=1).capacity == 1


def test_an_elman_state_stays_within_one(tmp_path):
    """R1: h is a tanh, its values lie in [-1, 1], after any text; it begins at 0."""
    model = load(read_artefact(tiny_model(tmp_path / "elman.onnx", "elman", 1, 24)))
    assert model.initial == SessionState((bytes(4 * 24),))
    _, rows = steps(model, chars_of(300, 5))
    states = np.array([np.frombuffer(row[0], "<f4") for row in rows])
    assert 0.1 < np.abs(states).max() <= 1


def test_hello_is_read_one_character_at_a_time(tmp_path):
    """R6: each h of "hello" encodes all before it: the two l have the same input and different states and logits."""
    model = load(read_artefact(tiny_model(tmp_path / "elman.onnx", "elman", 1, 24)))
    step = reference_step("elman", random_weights("elman", 1, 24))
    model.load_row(0, model.initial.tensors)
    state: list[NDArray[Any]] = [np.zeros((1, 24))]
    seen = []
    for character in "hello":
        model.chars[0] = CHARACTERS.index(character)
        logits = model.step(1)[0].copy()
        expected, state = step(np.array([CHARACTERS.index(character)]), state)
        h = np.frombuffer(model.save_row(0)[0], "<f4")
        assert np.abs(logits - expected[0]).max() < 1e-5
        assert np.abs(h - state[0][0]).max() < 1e-5
        seen.append(h.tobytes())
    assert len(set(seen)) == 5


@pytest.mark.parametrize("prefill", [True, False])
def test_reading_is_stepping(tmp_path, prefill):
    """2: a text read at once gives the logits and states of its steps, bit for bit, for any number of rows."""
    path = tiny_model(tmp_path / "model.onnx", "lstm", 2, 24, prefill=prefill)
    model = load(read_artefact(path))
    chars = chars_of(40, 7)
    expected, rows = steps(model, chars)
    for batch in (1, 2, 7):
        logits, states = model.read(np.ascontiguousarray(chars[:, :batch]), model.rows([model.initial] * batch))
        assert np.array_equal(logits, expected[:, :batch])
        assert [tuple(state[row].tobytes() for state in states) for row in range(batch)] == rows[:batch]


def test_rows_move_with_state_and_character(tiny):
    """A row that fills a hole continues there as it would have continued in its own place."""
    model = load(tiny)
    chars = chars_of(10, 3)
    expected, _ = steps(model, chars)
    steps(model, chars[:6])
    for at in range(6, 10):
        model.chars[:3] = chars[at]
        if at == 6:
            model.move_row(2, 0)
        model.chars[0] = chars[at, 2]
        assert np.array_equal(model.step(1)[0], expected[at, 2])


def test_the_first_rows_are_stepped_and_no_others(tiny):
    """Rows beyond the batch keep nothing and disturb nothing, even where their numbers are not finite."""
    model = load(tiny)
    expected, _ = steps(model, chars_of(5, 2))
    nothing = tuple(np.full(8, np.nan, np.float32).tobytes() for _ in model.initial.tensors)
    for row in range(2, 8):
        model.load_row(row, nothing)
    assert np.array_equal(steps(model, chars_of(5, 2))[0], expected)


def test_the_fingerprint_names_the_arithmetic(tiny, tmp_path):
    """Equal models have equal fingerprints, with one thread and with two; other weights have another."""
    prints = [load(tiny, num_threads=n).fingerprint for n in (1, 1, 2)]
    assert len(set(prints)) == 1
    changed = read_artefact(tiny_model(tmp_path / "changed.onnx", "gru", 2, 8, seed=9))
    assert load(changed).fingerprint != prints[0]
    assert prints[0].startswith("onnxruntime-")


# Initial states


def test_a_named_default_is_the_beginning(tiny):
    """A session starts from the artefact's `default` state; other names are not taken for it."""
    rows = tuple(np.full(8, value, np.float32).tobytes() for value in (0.5, -0.5))
    assert load(dataclasses.replace(tiny, initial_states={"default": rows})).initial == SessionState(rows)
    zeros = SessionState((bytes(32), bytes(32)))
    assert load(dataclasses.replace(tiny, initial_states={"calm": rows})).initial == zeros


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((), "another size"),
        ((bytes(32),), "another size"),
        ((bytes(32), bytes(31)), "another size"),
        ((bytes(32), np.full(8, np.nan, np.float32).tobytes()), "not finite"),
        ((np.full(8, np.inf, np.float32).tobytes(), bytes(32)), "not finite"),
    ],
)
def test_an_initial_state_fits_the_graph(tiny, rows, sentence):
    """Of another size, or not finite: refused."""
    with pytest.raises(ArtefactError, match=sentence):
        load(dataclasses.replace(tiny, initial_states={"default": rows}))


# What is refused


def test_rows_that_see_one_another_are_refused(tmp_path):
    """A graph that looks over the batch could repeat no text: the self-check finds it."""
    nodes = [
        lookup("own"),
        helper.make_node("ReduceMean", ["own", "axis"], ["mean"], keepdims=1),
        helper.make_node("Add", ["own", "mean"], ["logits"]),
        KEEP,
    ]
    with pytest.raises(ArtefactError, match="rows depend on the batch"):
        load(other(tmp_path / "mean.onnx", nodes, {"axis": np.array([0])}))


def test_rows_that_depend_on_their_place_are_refused(tmp_path):
    """A graph that treats rows differently by their number is found too."""
    nodes = [
        lookup("own"),
        helper.make_node("CumSum", ["own", "axis"], ["logits"]),
        KEEP,
    ]
    with pytest.raises(ArtefactError, match="rows depend on the batch"):
        load(other(tmp_path / "place.onnx", nodes, {"axis": np.array(0)}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(tmp_path, value):
    """A network that diverged in training does not get as far as a caller."""
    nodes = [lookup("own"), helper.make_node("Add", ["own", "broken"], ["logits"]), KEEP]
    with pytest.raises(ArtefactError, match="not finite in the self-test"):
        load(other(tmp_path / "broken.onnx", nodes, {"broken": np.array([value], np.float32)}))


def test_the_onnx_rnn_operator_is_exact_at_every_batch(tmp_path):
    """Where a row alone has other bits than a row among others, a row alone is padded: no caller sees a difference."""
    weights = random_weights("elman", 1, 96)
    model = load(_rnn(tmp_path / "rnn.onnx", weights), capacity=64)
    assert model.layout.spacing == 1
    chars = chars_of(20, 64)
    expected, rows = steps(model, chars)
    for batch in (1, 2, 7):
        actual, states = steps(model, chars[:, 64 - batch :])
        assert np.array_equal(actual, expected[:, 64 - batch :])
        assert states == rows[64 - batch :]
    check_steps(model, reference_step("elman", weights), chars[:, :1], 1e-5)


def _rnn(path: Path, weights: Mapping[str, NDArray[np.float32]]) -> Artefact:
    """Return an artefact whose graph is the ONNX operator RNN over a sequence of one."""
    hidden = len(weights["layers.0.weight_hh"])
    bias = np.concatenate([weights["layers.0.bias_ih"], weights["layers.0.bias_hh"]])
    initializers = {
        "table": np.eye(SIZE, dtype=np.float32),
        "w": weights["layers.0.weight_ih"][None],
        "r": weights["layers.0.weight_hh"][None],
        "b": bias[None],
        "first": np.array([0]),
        "output_weight": np.ascontiguousarray(weights["output.weight"].T),
        "output_bias": weights["output.bias"],
    }
    nodes = [
        lookup("x"),
        helper.make_node("Unsqueeze", ["x", "first"], ["sequence"]),
        helper.make_node("Unsqueeze", ["state_0", "first"], ["h"]),
        helper.make_node("RNN", ["sequence", "w", "r", "b", "", "h"], ["", "last"], hidden_size=hidden),
        helper.make_node("Squeeze", ["last", "first"], ["next_state_0"]),
        helper.make_node("Gemm", ["next_state_0", "output_weight", "output_bias"], ["logits"]),
    ]
    return other(path, nodes, initializers, hidden)


def test_a_prefill_of_other_weights_is_refused(tiny, tmp_path):
    """What reads a prompt has to be what steps it."""
    changed = read_artefact(tiny_model(tmp_path / "changed.onnx", "gru", 2, 8, seed=9))
    with pytest.raises(ArtefactError, match="depend on"):
        load(dataclasses.replace(tiny, prefill=changed.prefill))


@pytest.mark.parametrize("step", [b"", b"garbage", b"\x3a\x00"])
def test_what_onnxruntime_cannot_load_is_one_sentence(tiny, step):
    """Its own exceptions never reach a caller as they are."""
    with pytest.raises(ArtefactError, match="onnxruntime cannot load it") as refused:
        load(dataclasses.replace(tiny, step=step))
    assert "\n" not in str(refused.value)


def test_threads_are_for_large_models():
    """A small model is slower with two threads; a large one takes two cores, or half of more; never none."""
    assert choose_threads(10**5, 8) == 1
    assert [choose_threads(10**7, num_cores) for num_cores in (0, 1, 2, 4, 8)] == [1, 1, 2, 2, 4]
