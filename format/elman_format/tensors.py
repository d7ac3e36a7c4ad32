"""The weights of a graph, by name, as the file stores them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from elman_format.graph import Field
from elman_format.wire import fields, messages, varints


@dataclass(frozen=True, slots=True)
class Tensor:
    """One initializer.

    Attributes:
        kind: Its element type, a `TensorProto.DataType`.
        shape: Its dimensions.
        data: Its elements, little-endian, row by row.
    """

    kind: int
    shape: tuple[int, ...]
    data: memoryview = field(repr=False)


def tensors(model: bytes) -> dict[str, Tensor]:
    """The initializers of a checked model that are stored as bytes, by name; others are left out."""
    return {name: tensor for graph in messages(model, Field.MODEL_GRAPH) for name, tensor in _tensors(graph)}


def _tensors(graph: memoryview) -> Iterator[tuple[str, Tensor]]:
    for message in messages(graph, Field.GRAPH_INITIALIZER):
        name, kind, shape, data = "", 0, [], None
        for number, value in fields(message):
            if number == Field.TENSOR_NAME and isinstance(value, memoryview):
                name = str(value, "utf-8", "replace")
            elif number == Field.TENSOR_KIND and isinstance(value, int):
                kind = value
            elif number == Field.TENSOR_DIMS:  # packed or not: protobuf allows both
                shape += [value] if isinstance(value, int) else varints(value)
            elif number == Field.TENSOR_DATA and isinstance(value, memoryview):
                data = value
        if data is not None:
            yield name, Tensor(kind, tuple(shape), data)
