import base64
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from elman_export.artefacts.artefact import Artefact, read_artefact, write_artefact
from elman_export.errors import ArtefactError
from elman_export.exporting.cells import StepGraphs
from elman_format import Metadata
from elman_format.file import with_digest
from tests.models import CHARACTERS, nan_model, random_weights, tiny_model

GRAPHS = StepGraphs("gru", random_weights("gru"))
METADATA = Metadata("tiny", tuple(CHARACTERS), cell="gru", num_layers=1, hidden_size=16)
ENTRIES = METADATA.entries()
RECORD = {
    "corpus_sha256": "0" * 64,
    "protocol": "streaming",
    "nats_per_character": 1.5,
    "standard_error": 0.1,
    "num_characters": 9,
}


def seal(model: onnx.ModelProto, entries: dict[str, str]) -> bytes:
    """A file with a right digest, whatever is inside."""
    onnx.helper.set_model_props(model, entries)
    return with_digest(model.SerializeToString())


def refusal(data: bytes) -> str:
    """The sentence with which a file is refused."""
    with pytest.raises(ArtefactError) as caught:
        Artefact.from_bytes(data)
    return str(caught.value)


# Writing and reading back


def test_what_is_written_is_read_back(tmp_path: Path):
    """Every field of the metadata comes back as it was."""
    written = Metadata(
        name="my-model",
        vocabulary=tuple(CHARACTERS),
        version="1.2-rc",
        cell="gru",
        num_layers=1,
        hidden_size=16,
        num_parameters=7,
        recipe={"seed": 1, "text": "\u00e9"},
        evaluation=(RECORD,),
        exporter={"elman": "0"},
    )
    write_artefact(tmp_path / "a.onnx", GRAPHS.step(), written)
    assert read_artefact(tmp_path / "a.onnx").metadata == written


def test_initial_states_are_read_back():
    """A named initial state keeps every bit."""
    row = np.linspace(-1, 1, 16, dtype=np.float32)
    metadata = Metadata("a", tuple(CHARACTERS), initial_states={"default": (row.tobytes(),)})
    artefact = Artefact.build(GRAPHS.step(), metadata)
    assert artefact.metadata.initial_states["default"] == (row.tobytes(),)


def test_the_digest_is_that_of_the_body_and_stands_last():
    """The last 82 bytes are one metadata entry with the SHA-256 of all before them."""
    data = Artefact.build(GRAPHS.step(), METADATA).data
    entry = onnx.load_model_from_string(data).metadata_props[-1]
    assert (entry.key, entry.value) == ("elman.digest", hashlib.sha256(data[:-82]).hexdigest())
    assert Artefact.from_bytes(data).digest == entry.value


def test_bytes_stand_for_256_symbols(tmp_path: Path):
    """A byte-level model has no list of characters and 256 logits."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", vocabulary=None))
    assert (artefact.metadata.vocabulary, artefact.metadata.vocabulary_size) == (None, 256)


def test_the_same_model_gives_the_same_file(tmp_path: Path):
    """Nothing in the file depends on when or where it was written."""
    files = [tiny_model(tmp_path / name, "lstm").read_bytes() for name in ("a.onnx", "b.onnx")]
    assert files[0] == files[1]


def test_the_prefill_carries_no_weights_but_is_whole_when_read():
    """The prefill graph travels bare and is joined with the main graph's initializers."""
    artefact = Artefact.build(GRAPHS.step(), METADATA, GRAPHS.prefill())
    assert artefact.prefill is not None
    joined = onnx.load_model_from_string(artefact.prefill)
    weights = {tensor.name for tensor in artefact.step.graph.initializer}
    assert weights < {tensor.name for tensor in joined.graph.initializer}
    assert not weights & {tensor.name for tensor in GRAPHS.prefill().graph.initializer}


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    """The error names the path, and no temporary file stays behind."""
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(ArtefactError, match=r"Cannot write .*a\.onnx"):
        tiny_model(tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


# Damaged and foreign files


def test_another_tools_file_is_refused(tmp_path: Path):
    """An ONNX file that does not come from here has no tail; the error begins with its path."""
    onnx.save(GRAPHS.step(), tmp_path / "a.onnx")
    with pytest.raises(ArtefactError, match=r"a\.onnx: Not an artefact"):
        read_artefact(tmp_path / "a.onnx")


def test_bytes_that_are_no_model_are_refused():
    """A right digest over garbage does not make a model."""
    assert refusal(with_digest(b"\xff" * 100)).startswith("The file is not a whole ONNX file")


def test_a_missing_file_is_one_sentence(tmp_path: Path):
    """The error names the path and the cause."""
    with pytest.raises(ArtefactError, match=r"Cannot read .*: No such file or directory\."):
        read_artefact(tmp_path / "nowhere.onnx")


# What a graph may not hold


def test_external_data_deep_inside_is_refused():
    """A constant inside a node's subgraph is no hiding place."""
    prefill = GRAPHS.prefill()
    body = next(node for node in prefill.graph.node if node.op_type == "Scan").attribute[0].g
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    tensor.external_data.add(key="location", value="/etc/passwd")
    body.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=tensor))
    encoded = base64.b64encode(prefill.SerializeToString()).decode()
    assert "is stored outside the file" in refusal(seal(GRAPHS.step(), {**ENTRIES, "elman.prefill": encoded}))


def test_a_broken_graph_is_refused():
    """A node that reads what nothing wrote makes no graph."""
    model = GRAPHS.step()
    model.graph.node[-1].input[0] = "nothing"
    assert refusal(seal(model, ENTRIES)).startswith("Not a valid ONNX graph")


def test_numbers_that_json_has_not_are_refused():
    """A recipe with NaN would be JSON that no other reader takes."""
    with pytest.raises(ArtefactError, match=r"elman\.recipe cannot be stored as JSON"):
        Artefact.build(GRAPHS.step(), Metadata("a", tuple(CHARACTERS), recipe={"loss": float("nan")}))


def test_the_models_for_other_tests_can_be_read(tmp_path: Path):
    """Even the model that turns NaN passes every check of the file."""
    assert read_artefact(nan_model(tmp_path / "nan.onnx")).metadata.name == "nan"
