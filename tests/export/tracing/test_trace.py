import functools
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.errors import DifferenceError, ExportError, ModuleError
from elman_export.exporting.verify import TOLERANCE, verify
from elman_export.tracing.source import Source, load_source, module_steps
from elman_export.tracing.trace import trace_module
from elman_format import Metadata
from tests import modules
from tests.models import CHARACTERS

METADATA = Metadata("mine", tuple(CHARACTERS), "7")


@functools.cache
def trace(name: str) -> tuple[Source, Artefact]:
    """A module of tests/modules.py and its artefact."""
    source = load_source(f"tests.modules:{name}")
    return source, trace_module(source, METADATA)


@pytest.mark.parametrize("name", ["min_gru", "learned_start"])
def test_any_module_becomes_an_artefact_that_computes_the_same(name: str):
    """At every batch, whatever it was traced with; its cell is `other`, its parameters are counted."""
    source, artefact = trace(name)
    verify(artefact, module_steps(source), num_steps=20).require()
    metadata = artefact.metadata
    assert (metadata.name, metadata.version, metadata.cell) == ("mine", "7", "other")
    assert metadata.num_parameters == sum(weight.numel() for weight in source.module.parameters())


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("usual_gru", ((2, 16),)),
        ("usual_lstm", ((2, 16), (2, 16))),
        ("usual_rnn_of_one_layer", ((1, 16),)),
        ("named_states", ((16,), (1,))),
        ("torch_lstm", ((2, 16), (2, 16))),
        ("projected_lstm", ((2, 8), (2, 16))),
        ("complex_state", ((16, 2),)),
    ],
)
def test_the_usual_networks_need_no_wrapper(name: str, shapes: tuple[tuple[int, ...], ...]):
    """Time axes, PyTorch's states [layers, batch, hidden], nested and named states: all of them are recognised."""
    source, artefact = trace(name)
    assert artefact.state_shapes == shapes
    verify(artefact, module_steps(source), num_steps=20).require()
    assert [tuple(part.shape) for part in source.state] == [(1, *shape) for shape in shapes]


def test_parametrized_weights_are_folded():
    """An orthogonal W_hh is a plain matrix in the artefact, and the module stays as it was."""
    source, artefact = trace("parametrized")
    verify(artefact, module_steps(source), num_steps=20).require()
    assert torch.nn.utils.parametrize.is_parametrized(source.module.get_submodule("gate"), "weight")


def test_large_weights_are_measured_by_the_module_itself():
    """In float32 it is further from itself in float64 than the usual bound: so may the artefact be."""
    source, artefact = trace("wide_weights")
    report = verify(artefact, module_steps(source), num_steps=20)
    report.require()
    assert max(finding.difference for finding in report.findings if finding.limit) > TOLERANCE


def test_the_batch_axis_is_not_mistaken_for_time():
    """Step by step, an artefact gives what the module gives for the whole text at once."""
    source, artefact = trace("usual_rnn_of_one_layer")
    chars = np.arange(12).reshape(4, 3)  # [T, B]
    with torch.inference_mode():
        expected, _ = source.module(torch.from_numpy(chars.T), torch.zeros(1, 3, 16))
    runtime = Runtime(artefact)
    logits, _ = runtime.advance(chars, runtime.initial_state(3))
    assert np.allclose(logits, expected.numpy().transpose(1, 0, 2), atol=1e-5)


def test_sixteen_bits_are_converted_with_a_note(caplog):
    """A module in half precision becomes float32, and a line says so."""
    source, artefact = trace("half")
    verify(artefact, module_steps(source), num_steps=20).require()
    assert "torch.bfloat16: it is converted to float32" in caplog.text


def test_probabilities_in_the_place_of_logits_are_noticed(caplog):
    """A softmax at the end is a likely mistake: a line says so."""
    trace("probabilities")
    assert "it seems to return probabilities" in caplog.text
    caplog.clear()
    trace("min_gru")
    # Torch's own logger may be on for debugging: other tests leave it so.
    assert not [record for record in caplog.records if record.name == "elman_export"]


def test_a_state_that_is_not_zero_becomes_the_default():
    """New sessions start where the module starts."""
    source, artefact = trace("learned_start")
    (row,) = artefact.metadata.initial_states["default"]
    assert row == source.state[0].numpy().tobytes()


def test_zeros_need_no_initial_state():
    """The format's default is zeros already."""
    assert trace("min_gru")[1].metadata.initial_states == {}


def test_the_artefact_tells_nothing_of_its_author():
    """Neither file names nor lines of source are in the file, and tracing twice gives the same file."""
    source, artefact = trace("min_gru")
    assert b"modules.py" not in artefact.data
    assert artefact.digest == trace_module(source, METADATA).digest


def test_tracing_is_quiet_and_leaves_logging_as_it_was(capfd):
    """Torch's tracer prints nothing, even where it fails."""
    with pytest.raises(ModuleError):
        trace("data_dependent")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("data_dependent", "torch cannot trace the module"),
        ("loop_over_rows", "The module fixes the number of rows at 3 at modules.py:"),
        ("matrix_exponential", "ONNX has no operator for aten.linalg_matrix_exp"),
        ("compiled", "The module was compiled by torch.jit"),
        ("hidden_attribute", "The module keeps a state of its own in hidden:"),
        ("memory_of_its_own", "The module returns different results for the same character and state"),
        ("bidirectional", "layers is bidirectional"),
        ("dropout", "The module returns different results for the same character and state"),
        ("one_row", "forward failed with RuntimeError"),
        ("squeezed", "The next state 0 are float32 [16] for 1 rows, must be float32 [1, 16]"),
        ("growing_state", "The next state 0 are float32 [1, 32] for 1 rows, must be float32 [1, 16]"),
        ("wrong_width", "The logits are float32 [1, 16] for 1 rows, must be float32 [1, 65]"),
        ("no_state_out", "forward returned float32 [1, 65]"),
        ("double", "state[0] is float64 [1, 16]"),
        ("two_rows", "state[0] is float32 [2, 16]"),
        ("no_state", "Got Cell with 0 states"),
        ("module_alone", "Got Cell: return (module, state)"),
        ("failing", "tests.modules:failing failed with ValueError (the weights are not there) at modules.py:"),
        ("nowhere", "tests.modules:nowhere failed with AttributeError"),
    ],
)
def test_what_breaks_the_convention_is_refused(name: str, sentence: str):
    """Each in one sentence that says what was found."""
    with pytest.raises(ModuleError) as caught:
        trace(name)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mean_over_rows", "rows must be independent"),
        ("not_finite", "not finite"),
    ],
)
def test_what_cannot_be_served_is_found_by_verification(name: str, sentence: str):
    """These can be traced, but not repeated."""
    source, artefact = trace(name)
    with pytest.raises(DifferenceError, match=sentence):
        verify(artefact, module_steps(source), num_steps=20).require()


@pytest.mark.parametrize("target", ["", "modules", ":build", "nowhere.at_all:build", "..:x"])
def test_a_function_that_is_not_there_is_one_sentence(target: str):
    """Whatever is written after --module."""
    with pytest.raises(ModuleError):
        load_source(target)


def test_the_current_folder_is_importable(tmp_path: Path, monkeypatch):
    """A file beside the prompt needs no installation."""
    (tmp_path / "beside.py").write_text("from tests.modules import min_gru as build")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(load_source("beside:build").module, modules.Cell)


def test_a_module_that_fails_later_is_one_sentence():
    """A source that cannot run at some batch ends verification with a sentence, not a traceback."""
    source = load_source("tests.modules:one_row")
    step = module_steps(source)["PyTorch"]
    with pytest.raises(ExportError, match="for 2 rows"):
        step(np.zeros(2, np.int64), [np.zeros((2, 16), np.float32)])


def test_the_module_runs_in_evaluation_mode():
    """Dropout layers are off, as they are when the model is served."""
    module = torch.nn.Dropout()
    module_steps(Source.of((module, (torch.zeros(1, 1),))))
    assert not module.training
