"""The server's reader of artefacts: a file that is read, and the one sentence that names a file which is not."""

import os
from pathlib import Path

import onnx
import pytest

from elman_format.file import with_digest
from elman_server.domain.errors import ArtefactError
from elman_server.models import artefact
from elman_server.models.artefact import read_artefact
from tests.models import tiny_model


def refusal(path: Path) -> str:
    """Return the sentence with which a file is refused, without its name."""
    with pytest.raises(ArtefactError) as refused:
        read_artefact(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_good_file_is_read(tmp_path):
    """What the format gives arrives in the server's types."""
    path = tiny_model(tmp_path / "tiny.onnx", hidden_size=4)
    read = read_artefact(path)
    assert (read.name, read.version, read.cell, read.state_shapes) == ("tiny", "1", "gru", ((4,),))
    assert (len(read.vocabulary), read.output_size) == (65, 65)
    assert (read.step, read.prefill is None) == (path.read_bytes(), False)


def test_what_is_no_file_is_refused(tmp_path):
    """A directory, a missing file and an empty one are each one sentence."""
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    assert "cannot be read: No such file" in refusal(tmp_path / "missing.onnx")
    (tmp_path / "empty.onnx").touch()
    assert "does not end with elman.digest" in refusal(tmp_path / "empty.onnx")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    """The size is checked before the file is read."""
    monkeypatch.setattr(artefact, "MAX_BYTES", 10)
    path = tmp_path / "large.onnx"
    path.write_bytes(bytes(11))
    assert "larger than 10 bytes" in refusal(path)


def test_weights_behind_a_pipe_are_refused_at_once(tmp_path):
    """A location that would block its reader is never opened."""
    os.mkfifo(tmp_path / "pipe")
    path = tiny_model(tmp_path / "tiny.onnx")
    model = onnx.load_from_string(path.read_bytes())
    del model.metadata_props[-1]
    tensor = onnx.TensorProto(name="outside", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="pipe")
    model.graph.initializer.append(tensor)
    path.write_bytes(with_digest(model.SerializeToString()))
    assert "stored outside the file" in refusal(path)
