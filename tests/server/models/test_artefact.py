"""The artefact's reader: what it gives, and the one sentence with which it refuses."""

import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper

from elman_server.domain.errors import ArtefactError
from elman_server.models import artefact
from elman_server.models.artefact import read_artefact
from elman_server.models.wire import encode
from tests.models import CHARACTERS, tiny_model

SECRET = "/etc/passwd"
EVALUATION = {
    "corpus_sha256": "0" * 64,
    "protocol": "streaming",
    "nats_per_character": 1.5,
    "standard_error": 0,
    "num_characters": 9,
}


def seal(body: bytes) -> bytes:
    """Add the tail that makes a body a whole file, as anybody can: a digest is no signature."""
    return body + b"\x72\x50\x0a\x0celman.digest\x12\x40" + hashlib.sha256(body).hexdigest().encode()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """A file that is taken."""
    return tiny_model(tmp_path_factory.mktemp("good") / "tiny.onnx", "gru", hidden_size=4).read_bytes()


@pytest.fixture
def sealed(good, tmp_path) -> Callable[..., Path]:
    """Write the good file again after a change, with a digest that fits."""

    def write(change: Callable[[ModelProto], object] = lambda _: None, **entries: str | None) -> Path:
        model = onnx.load_from_string(good)
        metadata = {entry.key.removeprefix("elman."): entry.value for entry in model.metadata_props}
        del metadata["digest"], model.metadata_props[:]
        metadata |= {key: value for key, value in entries.items() if value is not None}
        for key, value in metadata.items():
            if key not in entries or entries[key] is not None:
                model.metadata_props.add(key=f"elman.{key}", value=value)
        change(model)
        path: Path = tmp_path / "changed.onnx"
        path.write_bytes(seal(model.SerializeToString()))
        return path

    return write


def refusal(path: Path) -> str:
    """Return the sentence with which a file is refused, without its name."""
    with pytest.raises(ArtefactError) as refused:
        read_artefact(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300
    return message.removeprefix(f"{path}: ")


def test_a_good_file_is_read(good, tmp_path):
    """R2: the shapes, sizes and names are those that were exported."""
    path = tmp_path / "good.onnx"
    path.write_bytes(good)
    read = read_artefact(path)
    assert (read.name, read.version, read.cell) == ("tiny", "1", "gru")
    assert (read.num_layers, read.hidden_size) == (1, 4)
    assert read.num_parameters == 3 * 4 * (65 + 4 + 2) + 65 * 5
    assert read.vocabulary.characters == tuple(CHARACTERS)
    assert read.digest == hashlib.sha256(good[:-82]).hexdigest()
    assert read.prefill is not None
    assert read.step == good


def test_a_file_sealed_again_is_read(sealed):
    """The helper of the tests below changes nothing by itself."""
    assert read_artefact(sealed()).name == "tiny"


def test_the_lesson_network_has_its_shapes(tmp_path):
    """R2 and R11: 128 units and 65 characters are three matrices and two biases, whatever the length of a text."""
    read = read_artefact(tiny_model(tmp_path / "elman.onnx", "elman", hidden_size=128))
    assert read.num_parameters == 128 * 65 + 128 * 128 + 2 * 128 + 65 * 128 + 65
    weights = {tensor.name: tuple(tensor.dims) for tensor in onnx.load_from_string(read.step).graph.initializer}
    assert weights["output.weight"] == (128, 65)  # stored as it is multiplied: y = h W


def test_a_file_cut_anywhere_is_refused(good, tmp_path):
    """A download that ended early never loads, wherever it ended."""
    path = tmp_path / "cut.onnx"
    for size in {0, 1, 81, 82, 83, 1000, len(good) // 2, *range(len(good) - 90, len(good))}:
        path.write_bytes(good[:size])
        assert "does not end with its digest" in refusal(path)


def test_a_byte_changed_anywhere_is_found(good, tmp_path):
    """The digest covers all but itself."""
    path = tmp_path / "changed.onnx"
    for at in [*range(0, len(good), 97), *range(len(good) - 82, len(good))]:
        changed = bytearray(good)
        changed[at] ^= 0x20
        path.write_bytes(changed)
        assert "digest" in refusal(path)


def test_bytes_added_at_either_end_are_found(good, tmp_path):
    """Nothing may stand before or after."""
    path = tmp_path / "longer.onnx"
    for data in (good + b"\n", b"\n" + good, good + good[-82:]):
        path.write_bytes(data)
        assert "digest" in refusal(path)


def test_what_is_no_file_is_refused(tmp_path):
    """A directory, a missing file and an empty one are each one sentence."""
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    assert "cannot be read: No such file" in refusal(tmp_path / "missing.onnx")
    (tmp_path / "empty.onnx").touch()
    assert "does not end with its digest" in refusal(tmp_path / "empty.onnx")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    """The size is looked at before the file is."""
    monkeypatch.setattr(artefact, "MAX_BYTES", 10)
    path = tmp_path / "large.onnx"
    path.write_bytes(bytes(11))
    assert "larger than 10 bytes" in refusal(path)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"format": "2"}, "has format '2', this server reads 1"),
        ({"format": None}, "has format None"),
        ({"colour": "red"}, "unknown metadata 'elman.colour'; upgrade the server"),
        ({"x\n" * 5000: ""}, "unknown metadata"),
        ({"recipe": None}, "lacks the metadata elman.recipe"),
        ({"digest": "0" * 64}, "has 'elman.digest' twice"),
        ({"name": "../up"}, "elman.name is '../up'"),
        ({"name": "x" * 64}, "does not match"),
        ({"version": ""}, "elman.version is ''"),
        ({"cell": "transformer"}, "elman.cell is 'transformer'; allowed are elman, gru, lstm, other"),
        ({"cell": "x" * 5000}, "elman.cell is 'x"),
        ({"num_layers": "-1"}, "elman.num_layers is '-1'"),
        ({"hidden_size": "9" * 5000}, "elman.hidden_size is '999"),
        ({"recipe": "]"}, "elman.recipe is not JSON"),
        ({"exporter": "[]"}, "elman.exporter is not a JSON dict"),
        ({"evaluation": "{}"}, "elman.evaluation is not a JSON list"),
        ({"evaluation": "[1]"}, "elman.evaluation holds something else than corpus_sha256, protocol"),
        ({"evaluation": '[{"protocol": "p"}]'}, "elman.evaluation holds something else than corpus_sha256, protocol"),
        ({"evaluation": json.dumps([EVALUATION | {"protocol": 5}])}, "elman.evaluation has a protocol of another type"),
        ({"evaluation": "[" * 100_000}, "elman.evaluation is not JSON"),
        ({"vocabulary": "{}"}, "elman.vocabulary is not a JSON list"),
        ({"vocabulary": '"letters"'}, "elman.vocabulary is not a JSON list"),
        ({"vocabulary": "[]"}, "is empty or holds a character twice"),
        ({"vocabulary": '["a", "a"]'}, "is empty or holds a character twice"),
        ({"vocabulary": '["ab"]'}, "something else than one-character strings"),
        ({"vocabulary": '["a", 5]'}, "something else than one-character strings"),
        ({"vocabulary": r'["a", "\ud800"]'}, "lone surrogate"),
        ({"initial_states": '{"default": 5}'}, "something else than lists of base64"),
        ({"initial_states": '{"default": ["%"]}'}, "something else than lists of base64"),
        ({"initial_states": '{"default": ["ä"]}'}, "something else than lists of base64"),
        ({"initial_states": '{"default": [7]}'}, "something else than lists of base64"),
        ({"prefill": "%%%"}, "elman.prefill is not base64"),
        ({"prefill": "ä"}, "elman.prefill is not base64"),
        ({"prefill": base64.b64encode(b"garbage").decode()}, "elman.prefill is not a whole graph"),
        ({"prefill": ""}, "does not hold one graph"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_metadata_that_cannot_be_honoured_is_named(sealed, entries, sentence):
    """Every entry is checked, and the sentence says which is wrong."""
    assert sentence in refusal(sealed(**entries))


def probes(**change: object) -> str:
    """Return the metadata of one probe with something changed."""
    rows = base64.b64encode(np.zeros((2, 4), "<f4").tobytes()).decode()
    bias = base64.b64encode(np.zeros(2, "<f4").tobytes()).decode()
    probe = {"labels": ["no", "yes"], "weight": rows, "bias": bias, "record": {}}
    return json.dumps({"mood": probe | change})


NAN = base64.b64encode(np.full(2, np.nan, "<f4").tobytes()).decode()


def test_a_probe_is_read(sealed):
    """Its labels, sizes and record are those that were stored."""
    (probe,) = read_artefact(sealed(probes=probes(record={"accuracy": 0.5, "num_held_out": 4}))).probes
    assert (probe.name, probe.labels, probe.weight.shape) == ("mood", ("no", "yes"), (2, 4))
    assert (probe.accuracy, probe.num_held_out) == (0.5, 4)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"labels": "[]"}, "elman.labels has no list of at least 2 labels"),
        ({"labels": '"ab"'}, "elman.labels is not a JSON list"),
        ({"labels": '["a", "a"]'}, "elman.labels has a label twice"),
        ({"labels": '["a", ""]'}, "no printable string of 1 to 63"),
        ({"labels": '["a", "\\ud800"]'}, "no printable string"),
        ({"probes": "["}, "elman.probes is not JSON"),
        ({"probes": "[]"}, "elman.probes is not a JSON dict"),
        ({"probes": '{"A b": {}}'}, "'A b' has a name that does not match"),
        ({"probes": '{"mood": 1}'}, "the probe 'mood' is not of bias, labels, record, weight"),
        ({"probes": probes(more=1)}, "is not of bias, labels, record, weight"),
        ({"probes": probes(labels=["no", "no"])}, "the probe 'mood' has a label twice"),
        ({"probes": probes(weight="?")}, "not base64 of float32"),
        ({"probes": probes(weight=None)}, "not base64 of float32"),
        ({"probes": probes(weight="")}, "other sizes than its labels"),
        ({"probes": probes(bias="AAAAAA==")}, "other sizes than its labels"),
        ({"probes": probes(bias=NAN)}, "not finite"),
        ({"probes": probes(record={"accuracy": 2})}, "accuracy or num_held_out out of range"),
        ({"probes": probes(record={"accuracy": "x"})}, "accuracy or num_held_out out of range"),
        ({"initial_states": '{"A b": []}'}, "has the initial state 'A b'"),
    ],
)
def test_broken_read_outs_are_refused(sealed, entries, sentence):
    """Labels, probes and names of initial states are checked before anything runs."""
    assert sentence in refusal(sealed(**entries))


@pytest.mark.parametrize("key", ["format", "name", "version"])
def test_an_entry_that_stands_twice_is_refused(sealed, key):
    """Twice is refused even where both say the same."""

    def repeat(model: ModelProto) -> None:
        value = next(entry.value for entry in model.metadata_props if entry.key == f"elman.{key}")
        model.metadata_props.add(key=f"elman.{key}", value=value)

    assert f"has 'elman.{key}' twice" in refusal(sealed(repeat))


def test_foreign_metadata_is_left_alone(sealed):
    """Keys of other tools are theirs."""
    assert read_artefact(sealed(lambda model: model.metadata_props.add(key="author", value="me"))).name == "tiny"


def test_evaluations_are_read(sealed):
    """What the model was measured at comes as it was written."""
    assert read_artefact(sealed(evaluation=json.dumps([EVALUATION]))).evaluation == (EVALUATION,)


def test_every_initial_state_is_read(sealed):
    """Named initial states come as little-endian float32 bytes."""
    row = base64.b64encode(b"\0\0\x80\x3f" * 4).decode()
    read = read_artefact(sealed(initial_states=json.dumps({"default": [row], "calm": [row]})))
    assert read.initial_states == dict.fromkeys(("default", "calm"), (b"\x00\x00\x80?" * 4,))


def external(location: str) -> TensorProto:
    """Return a tensor whose numbers lie in another file."""
    tensor = TensorProto(name="stolen", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def as_initializer(model: ModelProto, tensor: TensorProto) -> None:
    """Put the tensor among the weights."""
    model.graph.initializer.append(tensor)


def as_constant(model: ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into a Constant node."""
    model.graph.node.append(helper.make_node("Constant", [], ["stolen"], value=tensor))


def as_attribute_list(model: ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into an attribute that is a list."""
    model.graph.node[0].attribute.append(AttributeProto(name="x", type=AttributeProto.TENSORS, tensors=[tensor]))


def in_a_branch(model: ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into a graph within the graph."""
    branch = helper.make_graph([helper.make_node("Constant", [], ["stolen"], value=tensor)], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["condition"], ["stolen"], then_branch=branch, else_branch=branch))


def without_location(model: ModelProto, tensor: TensorProto) -> None:
    """Put it among the weights, marked as external but without a place."""
    tensor.ClearField("external_data")
    model.graph.initializer.append(tensor)


def without_mark(model: ModelProto, tensor: TensorProto) -> None:
    """Put it among the weights, with a place but not marked as external."""
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


PLACES = (as_initializer, as_constant, as_attribute_list, in_a_branch, without_location, without_mark)
_opened: list[str] = []
sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" else None)


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_another_file_are_refused_unopened(sealed, place):
    """External data pointing to /etc/passwd is refused wherever it stands; that file is never opened."""
    path = sealed(lambda model: place(model, external(SECRET)))
    _opened.clear()
    message = refusal(path)
    assert "keeps weights in another file" in message
    assert "root" not in message
    assert str(path) in _opened
    assert SECRET not in _opened


def test_weights_behind_a_pipe_are_refused_at_once(sealed, tmp_path):
    """A location that would block whoever opens it blocks nobody."""
    os.mkfifo(tmp_path / "pipe")
    assert "keeps weights in another file" in refusal(sealed(lambda m: as_initializer(m, external("pipe"))))


def test_weights_in_another_file_are_refused_in_the_prefill_too(sealed):
    """The second graph is checked as the first is."""
    skeleton = ModelProto()
    as_initializer(skeleton, external(SECRET))
    encoded = base64.b64encode(skeleton.SerializeToString()).decode()
    assert "keeps weights in another file" in refusal(sealed(prefill=encoded))


def with_functions(model: ModelProto) -> None:
    """Add a function of the model's own."""
    model.functions.add(name="f", domain="custom")


def with_a_foreign_operator(model: ModelProto) -> None:
    """Add a node of nobody's operator set."""
    model.graph.node.append(helper.make_node("Shell", [], ["x"], domain="com.example.shell"))


def with_a_foreign_operator_inside(model: ModelProto) -> None:
    """Add such a node in a graph within the graph."""
    branch = helper.make_graph([helper.make_node("Shell", [], ["x"], domain="com.example.shell")], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["x"], then_branch=branch))


def with_sparse_weights(model: ModelProto) -> None:
    """Add sparse weights."""
    model.graph.sparse_initializer.add()


def with_a_sparse_constant(model: ModelProto) -> None:
    """Add sparse weights in an attribute."""
    model.graph.node[0].attribute.append(AttributeProto(name="sparse_value", sparse_tensor=onnx.SparseTensorProto()))


def without_a_graph(model: ModelProto) -> None:
    """Leave the metadata alone."""
    model.ClearField("graph")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_functions, "holds model-local functions"),
        (with_a_foreign_operator, "uses the operator domain 'com.example.shell'"),
        (with_a_foreign_operator_inside, "uses the operator domain 'com.example.shell'"),
        (with_sparse_weights, "holds sparse weights"),
        (with_a_sparse_constant, "holds sparse weights"),
        (without_a_graph, "does not hold one graph"),
    ],
)
def test_a_graph_that_cannot_be_honoured_is_refused(sealed, change, sentence):
    """What the server would not run safely or exactly is named before onnxruntime sees it."""
    assert sentence in refusal(sealed(change))


@pytest.mark.parametrize(
    "body",
    [
        b"\x3a\xff\xff\xff\xff\x0f",  # a graph of 4 GB
        b"\x72\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # metadata of 2^63 bytes
        b"\x72\x01\xff",
        b"\x72\x04\x0a\x02\xff\xfe",
        b"\x72\x00",
    ],
)
def test_a_body_that_is_no_message_is_refused(good, tmp_path, body):
    """Lengths beyond the file, broken entries and bottomless graphs are found, though the digest fits."""
    path = tmp_path / "broken.onnx"
    for data in (body, good[:-82].replace(b"\x3a", body, 1), body + good[:-82]):
        path.write_bytes(seal(data))
        assert refusal(path)


def test_a_bottomless_graph_is_refused(sealed):
    """Graphs within graphs are followed to a depth that no model has, and no further."""
    path = sealed(without_a_graph)
    graph = b""
    for _ in range(3000):
        for number in (6, 5, 1):  # the graph of an attribute of a node of the next graph
            graph = encode(number, graph)
    path.write_bytes(seal(path.read_bytes()[:-82] + encode(7, graph)))
    assert "is not a whole ONNX file" in refusal(path)


@settings(max_examples=200)
@given(body=st.binary(max_size=200), rest=st.booleans())
def test_random_bytes_are_refused_in_one_sentence(good, tmp_path_factory, body, rest):
    """Whatever the bytes, sealed or not, the reader raises ArtefactError or reads the file."""
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    data: Any = seal(body + good[:-82]) if rest else seal(body)
    for content in (body, data):
        path.write_bytes(content)
        try:
            read_artefact(path)
        except ArtefactError as refused:
            assert str(refused).startswith(f"{path}: ")  # noqa: PT017  it may also be read
