"""A row has the same bits wherever it is computed: operators by widths by threads, on the runner that serves them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from elman_export.exporting.verify import verify
from elman_format import operators
from elman_format.layout import LAYOUTS
from elman_format.operators import CUT_SAFE
from elman_server.domain.state import SessionState
from elman_server.engine.core.model_runner import ModelRunner, ThreadsError, limit_threads
from elman_server.models.artefact import read_artefact
from tests.models import tiny_model
from tests.operators import CUT_OPERATORS, SAFE_OPERATORS, SYMBOLS, operator_model

WIDTHS_AND_THREADS = ((1, 1), (30, 1), (33, 2), (150, 2), (1000, 2), (1024, 4))
ROWS = 128
STEPS = 3
# 7, 13 and 40 are among those where a second thread cut Elu, Softplus and Selu of 1,024 units beside a multiple of 4.
SIZES = (1, 2, 3, 7, 13, 17, 40, 121)


def loaded(path: Path, num_threads: int = 1) -> ModelRunner:
    """Load a file as an engine does: with one thread if it cannot be served with more."""
    artefact = read_artefact(path)
    try:
        return ModelRunner(artefact, capacity=ROWS, num_threads=num_threads)
    except ThreadsError:
        return ModelRunner(artefact, capacity=ROWS, num_threads=1)


def stepped(model: ModelRunner, chars: NDArray[np.int64], states: list[bytes]) -> list[bytes]:
    """Step rows once; return the next state of each."""
    for row, state in enumerate(states):
        model.load_row(row, (state,))
    model.chars[: len(chars)] = chars
    model.step(len(chars))
    return [model.save_row(row)[0] for row in range(len(chars))]


@pytest.mark.parametrize("operator", [*CUT_OPERATORS, *SAFE_OPERATORS])
def test_a_row_has_the_same_bits_at_every_place_of_every_batch(tmp_path, operator):
    """Whatever the operator, the width and the threads: from states that a text led to, alone and among 120 others."""
    for width, num_threads in WIDTHS_AND_THREADS:
        operator_model(tmp_path / "model.onnx", operator, width)
        model = loaded(tmp_path / "model.onnx", num_threads)
        random = np.random.default_rng(width)
        states = [model.initial.tensors[0]] * ROWS
        for _ in range(STEPS):
            chars = random.integers(0, len(SYMBOLS), ROWS)
            expected = stepped(model, chars, states)
            for size in SIZES:  # the last rows, so that each is at another place
                actual = stepped(model, chars[-size:], states[-size:])
                assert actual == expected[-size:], (width, num_threads, size)
            walked = model.walk(chars[None, -7:], model.rows([SessionState((state,)) for state in states[-7:]]))[1]
            assert [state.tobytes() for state in walked[0][0]] == expected[-7:], (width, num_threads)
            states = expected


@pytest.mark.parametrize("operator", CUT_OPERATORS)
def test_what_threads_would_cut_runs_with_one_and_says_why(tmp_path, operator):
    """Two threads were asked for: the runner uses one and names the operator."""
    operator_model(tmp_path / "model.onnx", operator, 64)
    artefact = read_artefact(tmp_path / "model.onnx")
    model = loaded(tmp_path / "model.onnx", 2)
    (unsafe,) = artefact.operators - CUT_SAFE
    assert model.num_threads == 1
    assert model.limited_by == f"{unsafe} may round differently where threads cut the work"
    assert limit_threads(artefact, 1) == (1, "")


@pytest.mark.parametrize("operator", SAFE_OPERATORS)
def test_what_may_be_cut_keeps_its_threads(tmp_path, operator):
    """Of these operators a large model is as fast as before."""
    operator_model(tmp_path / "model.onnx", operator, 8)
    assert limit_threads(read_artefact(tmp_path / "model.onnx"), 2) == (2, "")


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_known_cells_keep_their_threads_and_compute_no_row_twice(tmp_path, cell):
    """Their speed is what it was."""
    model = loaded(tiny_model(tmp_path / "model.onnx", cell, hidden_size=30), 2)
    assert (model.num_threads, model.limited_by, model.layout) == (2, "", LAYOUTS[0])


def test_operators_inside_others_are_found(tmp_path):
    """The prefill graph of a known cell is a Scan over its operators."""
    artefact = read_artefact(tiny_model(tmp_path / "model.onnx", "gru"))
    assert artefact.prefill is not None
    assert {"Scan", "Tanh", "Sigmoid"} <= operators(artefact.prefill)


@pytest.mark.parametrize(
    ("operator", "width", "spacing"),
    [("RMSNorm", 32, 1), ("RMSNorm", 30, 2), ("RMSNorm", 33, 4), ("InstanceNormalization", 150, 2), ("Sin", 33, 1)],
)
def test_rows_lie_as_near_as_their_bits_allow(tmp_path, operator, width, spacing):
    """A mean over a width that is not a multiple of 4 costs as many rows as bring it to one, and no more."""
    operator_model(tmp_path / "model.onnx", operator, width)
    assert loaded(tmp_path / "model.onnx").layout.spacing == spacing


def test_threads_that_cannot_be_proved_are_refused(tmp_path):
    """Rows that have to lie apart are proved with one thread; with two a `ThreadsError` says what is wrong."""
    operator_model(tmp_path / "model.onnx", "RMSNorm", 33)
    with pytest.raises(ThreadsError, match="with 2 threads its rows depend on the batch"):
        ModelRunner(read_artefact(tmp_path / "model.onnx"), capacity=ROWS, num_threads=2)


@pytest.mark.parametrize(
    ("operator", "width"),
    [
        ("Elu", 1000),
        ("Softplus", 150),
        ("Log", 50),
        ("Sin", 33),
        ("RMSNorm", 30),
        ("InstanceNormalization", 150),
        ("Mamba", 50),
    ],
)
def test_what_the_exporter_proves_is_served_and_what_is_served_it_proves(tmp_path, operator, width):
    """`verify` and the server try the same layouts in the same batches."""
    artefact = operator_model(tmp_path / "model.onnx", operator, width)
    verify(artefact, {}, num_steps=20).require()
    assert loaded(tmp_path / "model.onnx", 2).num_threads in {1, 2}
