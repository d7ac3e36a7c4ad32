"""The format: what a file gives, and the one sentence with which it is refused."""

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper

from elman_format import FormatError, file, parse
from elman_format.wire import encode
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
    """Add the tail that makes a body a whole file; a digest is not a signature."""
    return body + b"\x72\x50\x0a\x0celman.digest\x12\x40" + hashlib.sha256(body).hexdigest().encode()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """A file that is taken."""
    return tiny_model(tmp_path_factory.mktemp("good") / "tiny.onnx", "gru", hidden_size=4).read_bytes()


@pytest.fixture
def sealed(good) -> Callable[..., bytes]:
    """Return the good file after a change, with a digest that fits."""

    def write(change: Callable[[ModelProto], object] = lambda _: None, **entries: str | None) -> bytes:
        model = onnx.load_from_string(good)
        metadata = {entry.key.removeprefix("elman."): entry.value for entry in model.metadata_props}
        del metadata["digest"], model.metadata_props[:]
        metadata |= {key: value for key, value in entries.items() if value is not None}
        for key, value in metadata.items():
            if key not in entries or entries[key] is not None:
                model.metadata_props.add(key=f"elman.{key}", value=value)
        change(model)
        return seal(model.SerializeToString())

    return write


def refusal(data: bytes) -> str:
    """Return the sentence with which a file is refused."""
    with pytest.raises(FormatError) as refused:
        parse(data)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


def test_a_good_file_is_read(good):
    """R2: the shapes, sizes and names are those that were exported."""
    read = parse(good)
    own = read.metadata
    assert (own.name, own.version, own.cell) == ("tiny", "1", "gru")
    assert (own.num_layers, own.hidden_size, read.state_shapes) == (1, 4, ((4,),))
    assert own.num_parameters == 3 * 4 * (65 + 4 + 2) + 65 * 5
    assert own.vocabulary == tuple(CHARACTERS)
    assert read.digest == hashlib.sha256(good[:-82]).hexdigest()
    assert read.prefill is not None
    assert read.data == good


def test_a_file_sealed_again_is_read(sealed):
    """The helper of the tests below changes nothing by itself."""
    assert parse(sealed()).metadata.name == "tiny"


def test_the_lesson_network_has_its_shapes(tmp_path):
    """R2 and R11: 128 units and 65 characters are three matrices and two biases, whatever the length of a text."""
    read = parse(tiny_model(tmp_path / "elman.onnx", "elman", hidden_size=128).read_bytes())
    assert read.metadata.num_parameters == 128 * 65 + 128 * 128 + 2 * 128 + 65 * 128 + 65
    weights = {tensor.name: tuple(tensor.dims) for tensor in onnx.load_from_string(read.data).graph.initializer}
    assert weights["output.weight"] == (128, 65)  # stored as it is multiplied: y = h W


def test_the_joined_prefill_holds_the_weights(good):
    """The skeleton in the file lacks the shared initializers, the joined graph has them all."""
    read = parse(good)
    assert read.prefill is not None
    assert read.skeleton is not None
    joined = {tensor.name for tensor in onnx.load_from_string(read.prefill).graph.initializer}
    weights = {tensor.name for tensor in onnx.load_from_string(good).graph.initializer}
    skeleton = {tensor.name for tensor in onnx.load_from_string(read.skeleton).graph.initializer}
    assert weights < joined
    assert not weights & skeleton


def test_a_file_cut_anywhere_is_refused(good):
    """A download that ended early is never read, wherever it ended."""
    for size in {0, 1, 81, 82, 83, 1000, len(good) // 2, *range(len(good) - 90, len(good))}:
        assert "does not end with elman.digest" in refusal(good[:size])


def test_a_byte_changed_anywhere_is_found(good):
    """The digest covers all bytes but its own."""
    for at in [*range(0, len(good), 97), *range(len(good) - 82, len(good))]:
        changed = bytearray(good)
        changed[at] ^= 0x20
        assert "digest" in refusal(bytes(changed))


def test_bytes_added_at_either_end_are_found(good):
    """Nothing may precede or follow the file."""
    for data in (good + b"\n", b"\n" + good, good + good[-82:]):
        assert "digest" in refusal(data)


def test_a_file_that_is_too_large_is_refused(good, monkeypatch):
    """One limit holds for those who write and those who read."""
    monkeypatch.setattr(file, "MAX_BYTES", len(good) - 1)
    assert "larger than" in refusal(good)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"format": "3"}, "elman.format is '3', this release reads '1' and '2'"),
        ({"vocabulary": json.dumps(["<pad>", *CHARACTERS[1:]])}, "A vocabulary with specials needs elman.format '2'"),
        ({"format": None}, "elman.format is None"),
        ({"colour": "red"}, "The metadata key 'elman.colour' is unknown"),
        ({"x\n" * 5000: ""}, "is unknown"),
        ({"recipe": None}, "The metadata elman.recipe is missing"),
        ({"digest": "0" * 64}, "'elman.digest' is repeated"),
        ({"name": "../up"}, "elman.name is '../up'"),
        ({"name": "x" * 64}, "it must match"),
        ({"version": ""}, "elman.version is ''"),
        ({"cell": "transformer"}, "elman.cell is 'transformer': it must be one of elman, gru, lstm, other"),
        ({"cell": "x" * 5000}, "elman.cell is 'x"),
        ({"num_layers": "-1"}, "elman.num_layers is '-1'"),
        ({"hidden_size": "9" * 5000}, "elman.hidden_size is '999"),
        ({"recipe": "]"}, "elman.recipe is not JSON"),
        ({"exporter": "[]"}, "elman.exporter holds JSON of the wrong type"),
        ({"evaluation": "{}"}, "elman.evaluation holds JSON of the wrong type"),
        ({"evaluation": "[1]"}, "An evaluation record must hold exactly corpus_sha256, protocol"),
        ({"evaluation": '[{"protocol": "p"}]'}, "An evaluation record must hold exactly corpus_sha256, protocol"),
        ({"evaluation": json.dumps([EVALUATION | {"protocol": 5}])}, "An evaluation record holds 5 as its protocol"),
        ({"evaluation": json.dumps([EVALUATION | {"more": 1}])}, "must hold exactly"),
        ({"evaluation": json.dumps([EVALUATION | {"num_characters": 2**63}])}, "as its num_characters"),
        ({"evaluation": json.dumps([EVALUATION | {"num_characters": True}])}, "holds True as its num_characters"),
        ({"evaluation": json.dumps([EVALUATION | {"protocol": "\ud800"}])}, "as its protocol"),
        ({"evaluation": json.dumps([EVALUATION | {"standard_error": float("nan")}])}, "elman.evaluation is not JSON"),
        ({"evaluation": "[" * 100_000}, "elman.evaluation is not JSON"),
        ({"vocabulary": "{}"}, "elman.vocabulary holds JSON of the wrong type"),
        ({"vocabulary": '"letters"'}, "The vocabulary must be a list of characters"),
        ({"vocabulary": "[]"}, "The vocabulary must be a list of characters"),
        ({"vocabulary": '["a", "a"]'}, "The vocabulary holds 'a' twice"),
        ({"vocabulary": json.dumps(list(CHARACTERS[:-1]))}, "logits is float [batch, 65], must be float [batch, 64]"),
        ({"vocabulary": '["ab"]'}, "which is not one character"),
        ({"vocabulary": '["a", 5]'}, "which is not one character"),
        ({"vocabulary": r'["a", "\ud800"]'}, "which is not one character"),
        ({"initial_states": '{"default": 5}'}, "The initial state 'default' is not a list of base64"),
        ({"initial_states": '{"default": []}'}, "The initial state 'default' does not fit"),
        ({"initial_states": '{"default": ["AADAfw=="]}'}, "The initial state 'default' is not finite"),
        ({"hidden_size": "5"}, "The states do not fit 1 gru layers of 5 units"),
        ({"num_layers": "2"}, "The states do not fit 2 gru layers of 4 units"),
        ({"initial_states": '{"default": ["%"]}'}, "is not base64 of float32"),
        ({"initial_states": '{"default": ["ä"]}'}, "is not base64 of float32"),
        ({"initial_states": '{"default": [7]}'}, "is not base64 of float32"),
        ({"prefill": "%%%"}, "elman.prefill is not base64"),
        ({"prefill": "ä"}, "elman.prefill is not base64"),
        ({"prefill": base64.b64encode(b"garbage").decode()}, "not a whole ONNX file"),
        ({"prefill": ""}, "The model holds 0 graphs instead of one"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_metadata_that_violates_the_format_is_named(sealed, entries, sentence):
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
    (probe,) = parse(sealed(probes=probes(record={"accuracy": 0.5, "num_held_out": 4}))).metadata.probes.values()
    assert (probe.labels, probe.num_inputs, len(probe.weight)) == (("no", "yes"), 4, 32)
    assert (probe.accuracy, probe.num_held_out) == (0.5, 4)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"labels": "[]"}, "The elman.labels must be a list of at least two labels"),
        ({"labels": '"ab"'}, "elman.labels holds JSON of the wrong type"),
        ({"labels": '["a", "a"]'}, "The elman.labels hold 'a' twice"),
        ({"labels": '["a", ""]'}, "a label is a printable string of 1 to 63"),
        ({"labels": '["a", "\\ud800"]'}, "a label is a printable string"),
        ({"probes": "["}, "elman.probes is not JSON"),
        ({"probes": "[]"}, "elman.probes holds JSON of the wrong type"),
        ({"probes": '{"A b": {}}'}, "The probe's name is 'A b'"),
        ({"probes": '{"mood": 1}'}, "The probe mood must hold labels, weight, bias and record"),
        ({"probes": probes(more=1)}, "must hold labels, weight, bias and record"),
        ({"probes": probes(labels=["no", "no"])}, "The labels of the probe mood hold 'no' twice"),
        ({"probes": probes(weight="?")}, "not base64 of float32"),
        ({"probes": probes(weight=None)}, "not base64 of float32"),
        ({"probes": probes(weight="")}, "do not fit its 2 labels"),
        ({"probes": probes(bias="AAAAAA==")}, "do not fit its 2 labels"),
        ({"probes": probes(bias=NAN)}, "not finite"),
        ({"probes": probes(record={"accuracy": 2})}, "The accuracy of the probe mood"),
        ({"probes": probes(record={"num_held_out": -1})}, "The num_held_out of the probe mood"),
        ({"probes": probes(record=[])}, "The record of the probe mood is not a JSON object"),
        (
            {"probes": probes(weight=base64.b64encode(bytes(24)).decode())},
            "The probe mood reads 3 numbers, the states hold 4",
        ),
        ({"probes": probes(record={"accuracy": "x"})}, "The accuracy of the probe mood"),
        ({"initial_states": '{"A b": []}'}, "The initial state's name is 'A b'"),
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

    assert f"'elman.{key}' is repeated" in refusal(sealed(repeat))


def test_foreign_metadata_is_left_alone(sealed):
    """Keys of other tools are theirs."""
    assert parse(sealed(lambda model: model.metadata_props.add(key="author", value="me"))).metadata.name == "tiny"


def test_evaluations_are_read(sealed):
    """What the model was measured at comes as it was written."""
    assert parse(sealed(evaluation=json.dumps([EVALUATION]))).metadata.evaluation == (EVALUATION,)


def test_every_initial_state_is_read(sealed):
    """Named initial states come as little-endian float32 bytes."""
    row = base64.b64encode(b"\0\0\x80\x3f" * 4).decode()
    read = parse(sealed(initial_states=json.dumps({"default": [row], "calm": [row]})))
    assert read.metadata.initial_states == dict.fromkeys(("default", "calm"), (b"\x00\x00\x80?" * 4,))


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
    data = sealed(lambda model: place(model, external(SECRET)))
    _opened.clear()
    message = refusal(data)
    assert "is stored outside the file" in message
    assert "root" not in message
    assert SECRET not in _opened


def test_weights_in_another_file_are_refused_in_the_prefill_too(sealed):
    """The second graph is checked as the first is."""
    skeleton = ModelProto()
    as_initializer(skeleton, external(SECRET))
    encoded = base64.b64encode(skeleton.SerializeToString()).decode()
    assert "is stored outside the file" in refusal(sealed(prefill=encoded))


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
        (with_functions, "defines local functions"),
        (with_a_foreign_operator, "is of the unknown domain 'com.example.shell'"),
        (with_a_foreign_operator_inside, "is of the unknown domain 'com.example.shell'"),
        (with_sparse_weights, "holds sparse weights"),
        (with_a_sparse_constant, "holds sparse weights"),
        (without_a_graph, "The model holds 0 graphs instead of one"),
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
def test_a_body_that_is_no_message_is_refused(good, body):
    """Lengths beyond the file, broken entries and bottomless graphs are found, though the digest fits."""
    for data in (body, good[:-82].replace(b"\x3a", body, 1), body + good[:-82]):
        assert refusal(seal(data))


def test_a_bottomless_graph_is_refused(sealed):
    """Graphs within graphs are followed to a depth that no model has, and no further."""
    graph = b""
    for _ in range(3000):
        for number in (6, 5, 1):  # the graph of an attribute of a node of the next graph
            graph = encode(number, graph)
    assert "not a whole ONNX file" in refusal(seal(sealed(without_a_graph)[:-82] + encode(7, graph)))


@settings(max_examples=200)
@given(body=st.binary(max_size=200), rest=st.booleans())
def test_random_bytes_are_refused_in_one_sentence(good, body, rest):
    """Whatever the bytes, sealed or not, `parse` raises FormatError or reads the file."""
    data: Any = seal(body + good[:-82]) if rest else seal(body)
    for content in (body, data):
        try:
            parse(content)
        except FormatError as refused:
            assert "\n" not in str(refused)  # noqa: PT017  it may also be read


# Inputs and outputs


def rename(old: str, new: str) -> Callable[[ModelProto], None]:
    """Return a change of the name of an input or output, wherever it is used."""

    def change(model: ModelProto) -> None:
        for value in [*model.graph.input, *model.graph.output]:
            value.name = new if value.name == old else value.name

    return change


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("char", "text", "The graph's inputs are 'text, state_0'"),
        ("state_0", "h", "The graph's inputs are 'char, h'"),
        ("next_state_0", "h", "The graph's outputs are 'logits, h'"),
        ("logits", "scores", "The graph's outputs are 'scores, next_state_0'"),
    ],
)
def test_other_names_are_refused(sealed, old: str, new: str, sentence: str):
    """Inputs and outputs have the names of the format."""
    assert refusal(sealed(rename(old, new))).startswith(sentence)


def test_a_fixed_batch_is_refused(sealed):
    """The batch is the free dimension."""

    def fix(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    assert refusal(sealed(fix)).startswith("char is int64 [1], must be int64 [batch]")


def test_other_types_are_refused(sealed):
    """States are float32."""

    def widen(model: ModelProto) -> None:
        model.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE

    assert refusal(sealed(widen)).startswith("state_0 is double [batch, 4], must be float [batch, 4]")


def test_a_graph_without_state_is_refused(sealed):
    """A recurrent step needs a state."""

    def forget(model: ModelProto) -> None:
        del model.graph.input[1:], model.graph.output[1:]

    assert refusal(sealed(forget)).startswith("The graph lacks state_0")


def test_a_prefill_of_another_shape_is_refused(good, sealed, tmp_path):
    """The prefill graph has the step's states, and reads [time, batch]."""
    wide = parse(tiny_model(tmp_path / "wide.onnx", hidden_size=8).read_bytes()).skeleton
    step = onnx.load_from_string(good)
    del step.metadata_props[:]
    assert wide is not None
    for other, sentence in (
        (wide, "The prefill graph has other states than the step"),
        (step.SerializeToString(), "char is int64 [batch], must be int64 [time, batch]"),
    ):
        assert refusal(sealed(prefill=base64.b64encode(other).decode())).startswith(sentence)
