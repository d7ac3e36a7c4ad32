"""The self-check of portable models: what it accepts and what it refuses."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.artefact import read_artefact as read_exported
from elman_export.exporting.cells import GATES
from elman_server.domain.errors import ArtefactError
from elman_server.engine.core import model_runner
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.models.artefact import read_artefact
from tests.models import quantized_model, tiny_model


def load(path, **changes):
    """Load an artefact, with some of its facts changed."""
    return ModelRunner(dataclasses.replace(read_artefact(path), **changes), capacity=4, num_threads=1)


@pytest.mark.parametrize("cell", GATES)
def test_an_int8_model_is_portable(tmp_path, cell):
    """The server computes what the exporter has written down, by NumPy what it did by plain Python."""
    assert load(quantized_model(tmp_path / "a.onnx", cell, 2)).fingerprint == "portable-1"


def test_a_float32_model_has_the_fingerprint_of_its_arithmetic(tmp_path):
    """It names what computes it."""
    assert load(tiny_model(tmp_path / "a.onnx")).fingerprint.startswith("onnxruntime-")


def test_an_int8_model_of_an_older_exporter_is_served(tmp_path):
    """Without a self-check it has the fingerprint of its machine."""
    exported = read_exported(quantized_model(tmp_path / "a.onnx"))
    old = exported.with_metadata(dataclasses.replace(exported.metadata, self_check=""))
    old.save(tmp_path / "old.onnx")
    assert load(tmp_path / "old.onnx").fingerprint.startswith("onnxruntime-")


def test_the_self_check_of_another_model_is_refused(tmp_path):
    """The sentence says what differs."""
    other = read_artefact(quantized_model(tmp_path / "b.onnx", "lstm")).self_check
    with pytest.raises(ArtefactError, match="does not compute portable-1"):
        load(quantized_model(tmp_path / "a.onnx"), self_check=other)


def test_changed_weights_are_refused(tmp_path):
    """One, by the digest of the file; many in a file that was sealed again, by the self-check."""
    path = quantized_model(tmp_path / "a.onnx")
    artefact, data = read_exported(path), path.read_bytes()
    step = artefact.step
    weight = next(tensor for tensor in step.graph.initializer if tensor.name.endswith(".weight_hh"))
    at = data.index(weight.raw_data)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ArtefactError, match="digest differs"):
        load(path)
    weight.raw_data = bytes(255 - byte for byte in weight.raw_data)
    Artefact.build(step, artefact.metadata, None).save(path)
    with pytest.raises(ArtefactError, match="does not compute portable-1"):
        load(path)


@pytest.mark.parametrize("error", [0.01, 0.003])
def test_another_sigmoid_is_refused(tmp_path, monkeypatch, error):
    """A runtime whose sigmoid is a little off puts a few entries of the table elsewhere, and must not serve."""
    load_graph = model_runner._session

    def with_another_sigmoid(graph, num_threads):
        model = onnx.load_from_string(graph)
        for node in [*model.graph.node]:
            if node.op_type == "QLinearSigmoid":  # the step of its input a little longer
                node.input[1] = "wrong.step"
        step = next(tensor for tensor in model.graph.initializer if tensor.name == "table.step")
        value = numpy_helper.to_array(step) * np.float32(1 + error)
        model.graph.initializer.append(numpy_helper.from_array(value, "wrong.step"))
        return load_graph(model.SerializeToString(), num_threads)

    path = quantized_model(tmp_path / "a.onnx")
    artefact = read_exported(path)
    Artefact.build(artefact.step, artefact.metadata, None).save(path)  # without prefill, which would differ first
    monkeypatch.setattr(model_runner, "_session", with_another_sigmoid)
    with pytest.raises(ArtefactError, match="does not compute portable-1"):
        load(path)
