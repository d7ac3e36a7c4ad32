"""The checks of a graph on the protobuf wire: self-contained, standard operators, the inputs and outputs of a step."""

from collections.abc import Iterator, Sequence

from elman_format.errors import FormatError
from elman_format.names import shown
from elman_format.wire import fields, header, messages

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
FLOAT, INT64 = 1, 7  # TensorProto.DataType
_TYPES = {1: "float", 6: "int32", 7: "int64", 10: "float16", 11: "double", 16: "bfloat16"}
_MAX_SIZE = 2**31
_SPARSE = "The graph holds sparse weights, which are not supported: store them dense."

Shape = tuple[int | str, ...]


class Field:
    """Field numbers of onnx.proto (ONNX IR version 10) that the checks read."""

    MODEL_GRAPH, MODEL_METADATA, MODEL_FUNCTIONS = 7, 14, 25
    KEY, VALUE = 1, 2
    GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_SPARSE = 1, 5, 11, 12, 15
    NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
    ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
    ATTRIBUTE_SPARSE, ATTRIBUTE_SPARSES = 22, 23
    TENSOR_DIMS, TENSOR_KIND, TENSOR_NAME, TENSOR_DATA = 1, 2, 8, 9
    TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
    VALUE_NAME, VALUE_TYPE, TYPE_TENSOR, ELEMENT_TYPE, TENSOR_SHAPE, SHAPE_DIM = 1, 2, 1, 1, 2, 1
    DIM_VALUE, DIM_PARAM = 1, 2


def graph_of(model: bytes | memoryview) -> memoryview:
    """Return the one graph of a model after checking it.

    Raises:
        FormatError: External data, an unknown operator domain, a local function, sparse weights, or not one graph.
        WireError: It is not a protobuf message.
    """
    if any(True for _ in messages(model, Field.MODEL_FUNCTIONS)):
        raise FormatError("The graph defines local functions: inline them and export it again.")
    graphs = list(messages(model, Field.MODEL_GRAPH))
    if len(graphs) != 1:
        raise FormatError(f"The model holds {len(graphs)} graphs instead of one: export it again.")
    _check_graph(graphs[0])
    return graphs[0]


def state_shapes(graph: memoryview, positions: Sequence[str], output_size: int) -> tuple[tuple[int, ...], ...]:
    """Compare inputs and outputs with docs/artefact.md and return the shape of one row of each state.

    Args:
        graph: The step, or the prefill graph.
        positions: The shape of `char`: `batch`, or `time` and `batch`.
        output_size: The width of the logits.

    Raises:
        FormatError: A name, type or shape differs from the format.
        WireError: It is not a protobuf message.
    """
    inputs = dict(_values(graph, Field.GRAPH_INPUT))
    outputs = dict(_values(graph, Field.GRAPH_OUTPUT))
    states = [f"state_{i}" for i in range(len(inputs) - 1)]
    _check_names("inputs", list(inputs), ["char", *states])
    _check_names("outputs", list(outputs), ["logits", *(f"next_{state}" for state in states)])
    if not states:
        raise FormatError("The graph lacks state_0: a recurrent step needs at least one state.")
    _check_value("char", inputs["char"], INT64, tuple(positions))
    _check_value("logits", outputs["logits"], FLOAT, (*positions, output_size))
    shapes = []
    for state in states:
        row = tuple(size for size in inputs[state][1][1:] if isinstance(size, int) and 0 < size < _MAX_SIZE)
        _check_value(state, inputs[state], FLOAT, ("batch", *row))
        _check_value(f"next_{state}", outputs[f"next_{state}"], FLOAT, ("batch", *row))
        shapes.append(row)
    return tuple(shapes)


def with_initializers(model: bytes, graph: memoryview) -> bytes:
    """Return a model with the initializers of another graph: protobuf messages joined end to end are merged."""
    parts: list[bytes | memoryview] = []  # joined once: weights are large
    for tensor in messages(graph, Field.GRAPH_INITIALIZER):
        parts += header(Field.GRAPH_INITIALIZER, len(tensor)), tensor
    return b"".join([model, header(Field.MODEL_GRAPH, sum(map(len, parts))), *parts])


def _check_graph(graph: memoryview) -> None:
    for number, value in fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == Field.GRAPH_SPARSE:
            raise FormatError(_SPARSE)
        if number == Field.GRAPH_INITIALIZER:
            _check_tensor(value)
        if number == Field.GRAPH_NODE:
            _check_node(value)


def _check_node(node: memoryview) -> None:
    for domain in messages(node, Field.NODE_DOMAIN):
        name = str(domain, "utf-8", "replace")
        if name not in DOMAINS:
            raise FormatError(f"An operator is of the unknown domain {shown(name)}: export it with standard operators.")
    for attribute in messages(node, Field.NODE_ATTRIBUTE):
        for number, value in fields(attribute):
            if not isinstance(value, memoryview):
                continue
            if number in {Field.ATTRIBUTE_GRAPH, Field.ATTRIBUTE_GRAPHS}:
                _check_graph(value)
            if number in {Field.ATTRIBUTE_TENSOR, Field.ATTRIBUTE_TENSORS}:
                _check_tensor(value)
            if number in {Field.ATTRIBUTE_SPARSE, Field.ATTRIBUTE_SPARSES}:
                raise FormatError(_SPARSE)


def _check_tensor(tensor: memoryview) -> None:
    for number, value in fields(tensor):
        if number == Field.TENSOR_EXTERNAL or (number == Field.TENSOR_LOCATION and value != 0):
            raise FormatError("A weight is stored outside the file: export it with its weights.")


def _values(graph: memoryview, field: int) -> Iterator[tuple[str, tuple[int, Shape]]]:
    """Yield name, element type and shape; a free dimension is its name, or `?`."""
    for value in messages(graph, field):
        kind, shape = 0, list[int | str]()
        for name, tensor in _typed(value):
            for number, part in fields(tensor):
                if number == Field.ELEMENT_TYPE and isinstance(part, int):
                    kind = part
                if number == Field.TENSOR_SHAPE and isinstance(part, memoryview):
                    shape += map(_size, messages(part, Field.SHAPE_DIM))
            yield name, (kind, tuple(shape))


def _typed(value: memoryview) -> Iterator[tuple[str, memoryview]]:
    (name,) = [*messages(value, Field.VALUE_NAME)] or [memoryview(b"")]
    types = [tensor for kind in messages(value, Field.VALUE_TYPE) for tensor in messages(kind, Field.TYPE_TENSOR)]
    yield str(name, "utf-8", "replace"), types[0] if types else memoryview(b"")


def _size(dim: memoryview) -> int | str:
    for number, value in fields(dim):
        if number == Field.DIM_VALUE and isinstance(value, int):
            return value
        if number == Field.DIM_PARAM and isinstance(value, memoryview):
            return str(value, "utf-8", "replace")
    return "?"


def _check_names(what: str, actual: list[str], expected: list[str]) -> None:
    if actual != expected:
        raise FormatError(
            f"The graph's {what} are {shown(', '.join(actual))}: they must be {', '.join(expected)[:80]}."
        )


def _check_value(name: str, actual: tuple[int, Shape], kind: int, shape: Shape) -> None:
    if actual != (kind, shape):
        raise FormatError(f"{name} is {_describe(*actual)}, must be {_describe(kind, shape)}: export it again.")


def _describe(kind: int, shape: Shape) -> str:
    return f"{_TYPES.get(kind, f'of type {kind}')} [{', '.join(map(str, shape))}]"[:80]
