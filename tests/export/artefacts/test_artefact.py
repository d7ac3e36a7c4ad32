import base64
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from elman_export.artefacts.artefact import Artefact, _tail, read_artefact, write_artefact
from elman_export.artefacts.metadata import Metadata
from elman_export.errors import ArtefactError
from elman_export.exporting.cells import StepGraphs, make_model
from tests.models import CHARACTERS, nan_model, random_weights, tiny_model

GRAPHS = StepGraphs("gru", random_weights("gru"))
METADATA = Metadata("tiny", tuple(CHARACTERS), cell="gru", num_layers=1, hidden_size=16)
ENTRIES = METADATA.entries()


def seal(model: onnx.ModelProto, entries: dict[str, str]) -> bytes:
    """A file with a right digest, whatever is inside."""
    onnx.helper.set_model_props(model, entries)
    body = model.SerializeToString()
    return body + _tail(body)


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
        evaluation=({"protocol": "streaming", "nats_per_character": 1.5},),
        exporter={"elman": "0"},
    )
    write_artefact(tmp_path / "a.onnx", GRAPHS.step(), written)
    assert read_artefact(tmp_path / "a.onnx").metadata == written


def test_initial_states_are_read_back():
    """A named initial state keeps every bit."""
    row = np.linspace(-1, 1, 16, dtype=np.float32)
    metadata = Metadata("a", tuple(CHARACTERS), initial_states={"default": (row,)})
    artefact = Artefact.build(GRAPHS.step(), metadata)
    assert artefact.metadata.initial_states["default"][0].tobytes() == row.tobytes()


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


@pytest.mark.parametrize("size", [0, 1, 81, 82, 1000, -1])
def test_a_file_cut_short_is_refused(size: int):
    """Wherever it was cut, the sentence says so."""
    data = Artefact.build(GRAPHS.step(), METADATA).data
    assert refusal(data[:size]).startswith("Not an artefact, or cut short")


@pytest.mark.parametrize("position", [0, 5000, -83])
def test_a_changed_file_is_refused(position: int):
    """One flipped bit anywhere before the tail is found."""
    data = bytearray(Artefact.build(GRAPHS.step(), METADATA).data)
    data[position] ^= 1
    assert refusal(bytes(data)).startswith("The file was changed after it was written")


def test_another_tools_file_is_refused(tmp_path: Path):
    """An ONNX file that does not come from here has no tail; the error begins with its path."""
    onnx.save(GRAPHS.step(), tmp_path / "a.onnx")
    with pytest.raises(ArtefactError, match=r"a\.onnx: Not an artefact"):
        read_artefact(tmp_path / "a.onnx")


def test_bytes_that_are_no_model_are_refused():
    """A right digest over garbage does not make a model."""
    assert refusal(b"\xff" * 100 + _tail(b"\xff" * 100)).startswith("Not an ONNX model")


def test_a_missing_file_is_one_sentence(tmp_path: Path):
    """The error names the path and the cause."""
    with pytest.raises(ArtefactError, match=r"Cannot read .*: No such file or directory\."):
        read_artefact(tmp_path / "nowhere.onnx")


# What a graph may not hold


def test_external_data_is_refused_unread(tmp_path: Path):
    """A weight outside the file is refused, and what it points to is never opened."""
    model = GRAPHS.step()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(tmp_path / "is-no-file"))
    assert "is stored outside the file" in refusal(seal(model, ENTRIES))


def test_external_data_deep_inside_is_refused():
    """A constant inside a node's subgraph is no hiding place."""
    prefill = GRAPHS.prefill()
    body = next(node for node in prefill.graph.node if node.op_type == "Scan").attribute[0].g
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    tensor.external_data.add(key="location", value="/etc/passwd")
    body.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=tensor))
    encoded = base64.b64encode(prefill.SerializeToString()).decode()
    assert "is stored outside the file" in refusal(seal(GRAPHS.step(), {**ENTRIES, "elman.prefill": encoded}))


def test_foreign_operators_are_refused():
    """Only the standard domains and com.microsoft may appear."""
    model = GRAPHS.step()
    model.graph.node[0].domain = "evil.corp"
    assert "unknown domain 'evil.corp'" in refusal(seal(model, ENTRIES))


def test_local_functions_are_refused():
    """A function could hide operators."""
    model = GRAPHS.step()
    model.functions.add(name="f", domain="")
    assert "local functions" in refusal(seal(model, ENTRIES))


def test_a_broken_graph_is_refused():
    """A node that reads what nothing wrote makes no graph."""
    model = GRAPHS.step()
    model.graph.node[-1].input[0] = "nothing"
    assert refusal(seal(model, ENTRIES)).startswith("Not a valid ONNX graph")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"elman.format": "2"}, "elman.format is '2'"),
        ({"elman.colour": "red"}, "The metadata key elman.colour is unknown"),
        ({"elman.name": "../../etc"}, "elman.name is '../../etc'"),
        ({"elman.version": ""}, "elman.version is ''"),
        ({"elman.cell": "transformer"}, "elman.cell is 'transformer'"),
        ({"elman.num_layers": "-1"}, "elman.num_layers is '-1'"),
        ({"elman.num_layers": "2"}, "The states do not fit 2 gru layers of 16 units"),
        ({"elman.hidden_size": "17"}, "The states do not fit 1 gru layers of 17 units"),
        ({"elman.vocabulary": "nonsense"}, "elman.vocabulary is not JSON"),
        ({"elman.vocabulary": "3"}, "elman.vocabulary holds JSON of the wrong type"),
        ({"elman.vocabulary": '"words"'}, "The vocabulary must be a list of characters"),
        ({"elman.vocabulary": "[]"}, "The vocabulary must be a list of characters"),
        ({"elman.vocabulary": '["a", "a"]'}, "The vocabulary holds 'a' twice"),
        ({"elman.vocabulary": '["ab"]'}, "The vocabulary holds 'ab', which is not one character"),
        ({"elman.vocabulary": r'["\ud800"]'}, r"The vocabulary holds '\ud800'"),
        ({"elman.vocabulary": '["a", "b"]'}, "logits is float [batch, 65], must be float [batch, 2]"),
        ({"elman.initial_states": '{"default": ["?"]}'}, "The initial state 'default' is not a list of base64"),
        ({"elman.initial_states": '{"default": []}'}, "The initial state 'default' does not fit"),
        ({"elman.initial_states": '{"default": ["AADAfw=="]}'}, "The initial state 'default' is not finite"),
        ({"elman.recipe": "[" * 100_000}, "elman.recipe is not JSON"),
        ({"elman.evaluation": "{}"}, "elman.evaluation holds JSON of the wrong type"),
        ({"elman.prefill": "?"}, "elman.prefill is not base64"),
        ({"elman.prefill": ""}, "Not a valid ONNX graph"),
    ],
)
def test_metadata_that_the_format_does_not_allow_is_refused(change: dict[str, str], sentence: str):
    """Each value that cannot be honoured has its sentence."""
    assert refusal(seal(GRAPHS.step(), {**ENTRIES, **change})).startswith(sentence)


@pytest.mark.parametrize("key", sorted(ENTRIES))
def test_every_key_is_required(key: str):
    """A file that lacks a key is refused by its name."""
    entries = {other: value for other, value in ENTRIES.items() if other != key}
    assert key in refusal(seal(GRAPHS.step(), entries))


def test_a_repeated_key_is_refused():
    """Two readers must not take two different values from one file."""
    model = GRAPHS.step()
    onnx.helper.set_model_props(model, ENTRIES)
    model.metadata_props.add(key="elman.name", value="other")
    body = model.SerializeToString()
    assert "elman.name is repeated" in refusal(body + _tail(body))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("char", "text", "The graph's inputs are text, state_0"),
        ("state_0", "h", "The graph's inputs are char, h"),
        ("next_state_0", "h", "The graph's outputs are logits, h"),
        ("logits", "scores", "The graph's outputs are scores, next_state_0"),
    ],
)
def test_other_names_are_refused(old: str, new: str, sentence: str):
    """Inputs and outputs have the names of the format."""
    model = GRAPHS.step()
    for value in [*model.graph.input, *model.graph.output]:
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    assert refusal(seal(model, ENTRIES)).startswith(sentence)


def test_a_fixed_batch_is_refused():
    """The batch is the free dimension."""
    model = GRAPHS.step()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert refusal(seal(model, ENTRIES)).startswith("char is int64 [1], must be int64 [batch]")


def test_other_types_are_refused():
    """States are float32."""
    model = GRAPHS.step()
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert refusal(seal(model, ENTRIES)).startswith("state_0 is double [batch, 16]")


def test_a_graph_without_state_is_refused():
    """What remembers nothing is no recurrent step."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "char"], ["logits"])],
        "step",
        [helper.make_tensor_value_info("char", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 65])],
        [onnx.numpy_helper.from_array(np.zeros((65, 65), np.float32), "table")],
    )
    entries = Metadata("a", tuple(CHARACTERS)).entries()
    assert refusal(seal(make_model(graph), entries)).startswith("The graph lacks state_0")


def test_numbers_that_json_has_not_are_refused():
    """A recipe with NaN would be JSON that no other reader takes."""
    with pytest.raises(ArtefactError, match="not finite"):
        Artefact.build(GRAPHS.step(), Metadata("a", tuple(CHARACTERS), recipe={"loss": float("nan")}))


def test_the_models_for_other_tests_can_be_read(tmp_path: Path):
    """Even the model that turns NaN passes every check of the file."""
    assert read_artefact(nan_model(tmp_path / "nan.onnx")).metadata.name == "nan"
