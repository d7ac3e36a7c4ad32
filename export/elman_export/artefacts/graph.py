"""The checks of an artefact's graph: names, types, shapes, operators, and that it is self-contained."""

import math
from collections.abc import Iterator, Sequence

import onnx

from elman_export.artefacts.metadata import STATES, Metadata
from elman_export.errors import ArtefactError

_DOMAINS = ("", "ai.onnx", "com.microsoft")

_Shape = list[int | str]


def check_self_contained(model: onnx.ModelProto) -> None:
    """Refuse external data and operators that a reader may lack.

    Raises:
        ArtefactError: External data, a foreign operator domain, a local function, a broken graph.
    """
    if model.functions:
        raise ArtefactError("The graph defines local functions: inline them and export it again.")
    for graph in graphs(model.graph):
        for tensor in _tensors(graph):
            if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ArtefactError(
                    f"The weight {tensor.name!r:.80} is stored outside the file: export it with its weights."
                )
        for node in graph.node:
            if node.domain not in _DOMAINS:
                raise ArtefactError(
                    f"The operator {node.op_type:.80} is of the unknown domain {node.domain!r:.80}: "
                    "export it with standard operators only."
                )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ArtefactError(f"Not a valid ONNX graph: {reason}") from error


def check_contract(model: onnx.ModelProto, metadata: Metadata, positions: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Compare inputs and outputs with docs/artefact.md.

    Args:
        model: The main graph, or the prefill graph with its weights.
        metadata: The source of vocabulary, labels and sizes.
        positions: The shape of `char`: `batch`, or `time` and `batch`.

    Returns:
        The shape of one row of each state.

    Raises:
        ArtefactError: A name, type or shape differs from the format.
    """
    inputs = _values(model.graph.input)
    outputs = _values(model.graph.output)
    num_states = len(inputs) - 1
    states = [f"state_{i}" for i in range(num_states)]
    _check_names("inputs", list(inputs), ["char", *states])
    _check_names("outputs", list(outputs), ["logits", *(f"next_{state}" for state in states)])
    if num_states == 0:
        raise ArtefactError("The graph lacks state_0: a recurrent step needs at least one state.")
    _check_value("char", inputs["char"], onnx.TensorProto.INT64, list(positions))
    _check_value(
        "logits",
        outputs["logits"],
        onnx.TensorProto.FLOAT,
        [*positions, metadata.output_size],
    )
    rows = []
    for state in states:
        row = [size for size in inputs[state][1][1:] if isinstance(size, int) and size > 0]
        for name, value in ((state, inputs[state]), (f"next_{state}", outputs[f"next_{state}"])):
            _check_value(name, value, onnx.TensorProto.FLOAT, ["batch", *row])
        rows.append(tuple(row))
    _check_sizes(metadata, rows)
    return tuple(rows)


def _check_sizes(metadata: Metadata, rows: list[tuple[int, ...]]) -> None:
    if metadata.cell in STATES:
        num_states = metadata.num_layers * len(STATES[metadata.cell])
        if rows != [(metadata.hidden_size,)] * num_states:
            raise ArtefactError(
                f"The states do not fit {metadata.num_layers} {metadata.cell} layers of "
                f"{metadata.hidden_size} units: export it again."
            )
    sizes = [math.prod(row) for row in rows]
    for name, initial in metadata.initial_states.items():
        if [row.size for row in initial] != sizes:
            raise ArtefactError(f"The initial state {name!r:.80} does not fit the graph's states: export it again.")
    for name, probe in metadata.probes.items():
        if probe.weight.shape[1] != sum(sizes):
            raise ArtefactError(
                f"The probe {name} reads {probe.weight.shape[1]} numbers, the states hold {sum(sizes)}."
            )


def _check_names(what: str, actual: list[str], expected: list[str]) -> None:
    if actual != expected:
        raise ArtefactError(f"The graph's {what} are {', '.join(actual)}: they must be {', '.join(expected)}.")


def _check_value(name: str, actual: tuple[int, _Shape], kind: int, shape: _Shape) -> None:
    if actual != (kind, shape):
        raise ArtefactError(f"{name} is {_describe(*actual)}, must be {_describe(kind, shape)}: export it again.")


def _describe(kind: int, shape: _Shape) -> str:
    return f"{onnx.TensorProto.DataType.Name(kind).lower()} [{', '.join(map(str, shape))}]"


def _values(values: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[int, _Shape]]:
    """Name to element type and shape; a free dimension is its name or `?`."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
                for dim in value.type.tensor_type.shape.dim
            ],
        )
        for value in values
    }


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and, at any depth, those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    sparse = list(graph.sparse_initializer)
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)
