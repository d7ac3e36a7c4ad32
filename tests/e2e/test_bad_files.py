"""Model files that no exporter of ours wrote: the server does not start, and says in one line which and why."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.models import CHARACTERS, tiny_model
from tests.server_process import refused_start

_TAIL = b"\x72\x50\x0a\x0celman.digest\x12\x40"


def sealed(body: bytes) -> bytes:
    """Return a file of the right form and digest, whatever it holds."""
    return body + _TAIL + hashlib.sha256(body).hexdigest().encode()


def changed(data: bytes, change: Callable[[onnx.ModelProto], object]) -> bytes:
    """Return an artefact with something changed and its digest made right."""
    model = onnx.load_model_from_string(data)
    del model.metadata_props[-1]  # the digest
    change(model)
    return sealed(model.SerializeToString())


def with_entry(key: str, value: str) -> Callable[[bytes], bytes]:
    """Return what replaces one entry of the metadata."""

    def change(model: onnx.ModelProto) -> None:
        entries = {entry.key: entry.value for entry in model.metadata_props}
        onnx.helper.set_model_props(model, entries | {key: value})

    return lambda data: changed(data, change)


def outside(model: onnx.ModelProto) -> None:
    """Let the first weight lie in a file of the machine."""
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[: len(data) // 2], "Not an artefact, or cut short"),
    "truncated and sealed": (lambda data: sealed(data[: len(data) // 2]), "The file is not a whole ONNX file"),
    "of another format": (with_entry("elman.format", "3"), "elman.format is '3', this release reads '1' and '2'"),
    "with external data": (lambda data: changed(data, outside), "A weight is stored outside the file"),
    "of another vocabulary": (
        with_entry("elman.vocabulary", json.dumps([*CHARACTERS, "\N{EURO SIGN}"])),
        "logits is float [batch, 65], must be float [batch, 66]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_stops_the_start(tmp_path: Path, name: str):
    """The command exits 1 and names the file, though another model beside it is good."""
    spoil, sentence = BAD[name]
    good = tiny_model(tmp_path / "good.onnx", name="good")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(spoil(good.read_bytes()))

    code, (line,) = refused_start("--listen", "127.0.0.1:0", "--models", str(tmp_path))

    assert code == 1
    assert line.startswith(f"elman-server: {bad}: {sentence}")


def test_no_model_stops_the_start(tmp_path: Path):
    """An empty directory is one line that says what to put into it."""
    expected = f"elman-server: {tmp_path} holds no *.onnx file; write one with `elman-export trace`"

    assert refused_start("--listen", "127.0.0.1:0", "--models", str(tmp_path)) == (1, [expected])
