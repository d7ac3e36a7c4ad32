"""The whole file: a model, its metadata, and the digest at its end."""

import base64
import hashlib
import math
from dataclasses import dataclass, field

from elman_format.errors import FormatError
from elman_format.graph import Field, graph_of, state_shapes, with_initializers
from elman_format.metadata import PREFILL, PREFIX, STATES, Metadata
from elman_format.names import shown
from elman_format.values import FLOAT_BYTES
from elman_format.wire import WireError, encode, fields, messages

MAX_BYTES = 1 << 30  # of a whole file
# The encoded start of the last entry: field 14 (metadata_props), 80 bytes, key, 64-byte value.
TAIL_HEAD = b"\x72\x50\x0a\x0celman.digest\x12\x40"
TAIL_BYTES = len(TAIL_HEAD) + 64


@dataclass(frozen=True, slots=True)
class File:
    """One artefact, checked.

    Attributes:
        data: The whole file, which is also the step's model.
        digest: SHA-256 of all but the tail, 64 hex digits: the model's identity.
        metadata: Name, version, vocabulary and the rest.
        skeleton: The prefill model without the weights, as the file holds it; None without one.
        prefill: The same with the weights, ready to load.
        state_shapes: The shape of one row of each state.
    """

    data: bytes = field(repr=False)
    digest: str
    metadata: Metadata = field(repr=False)
    skeleton: bytes | None = field(repr=False)
    prefill: bytes | None = field(repr=False)
    state_shapes: tuple[tuple[int, ...], ...]


def seal(model: bytes, metadata: Metadata, prefill: bytes | None = None) -> File:
    """Join a model, its metadata and its prefill model to a file that passed every check of `parse`.

    Args:
        model: The serialized step without metadata.
        metadata: The metadata of the file.
        prefill: The serialized prefill model without the initializers that it shares with the step.

    Raises:
        FormatError: The format does not allow it.
    """
    entries = metadata.entries()
    if prefill is not None:
        entries[PREFILL] = base64.b64encode(prefill).decode()
    try:
        body = b"".join([model, *(encode(Field.MODEL_METADATA, _entry(*entry)) for entry in entries.items())])
    except UnicodeEncodeError as error:
        raise FormatError("The metadata holds a lone surrogate, which UTF-8 cannot encode: remove it.") from error
    return parse(with_digest(body))


def parse(data: bytes) -> File:
    """Check and read a whole file; nothing else is opened.

    Raises:
        FormatError: It is cut, changed, too large, not an artefact, or violates the format.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"The file is larger than {MAX_BYTES:,} bytes: make the model smaller.")
    digest = _check_digest(data)
    try:
        return _parse(data, digest)
    except (WireError, RecursionError) as error:
        raise FormatError("The file is not a whole ONNX file: export it again.") from error


def _parse(data: bytes, digest: str) -> File:
    entries = _entries(data)
    metadata = Metadata.from_entries(entries)
    graph = graph_of(data)
    shapes = state_shapes(graph, ["batch"], metadata.output_size)
    _check_sizes(metadata, shapes)
    skeleton = prefill = None
    if PREFILL in entries:
        skeleton = _skeleton(entries[PREFILL])
        if state_shapes(graph_of(skeleton), ["time", "batch"], metadata.output_size) != shapes:
            raise FormatError("The prefill graph has other states than the step: export it again.")
        prefill = with_initializers(skeleton, graph)
    return File(data, digest, metadata, skeleton, prefill, shapes)


def with_digest(body: bytes) -> bytes:
    """Return a body with the tail that makes it a whole file."""
    return body + _tail(body)


def _check_digest(data: bytes) -> str:
    body, tail = data[:-TAIL_BYTES], data[-TAIL_BYTES:]
    if not tail.startswith(TAIL_HEAD):
        raise FormatError("Not an artefact, or cut short: it does not end with elman.digest. Export it again.")
    if tail != _tail(body):
        raise FormatError("The file was changed after it was written: the digest differs. Export it again.")
    return tail[len(TAIL_HEAD) :].decode()


def _tail(body: bytes) -> bytes:
    return TAIL_HEAD + hashlib.sha256(body).hexdigest().encode()


def _entries(data: bytes) -> dict[str, str]:
    """Return the entries of the format; those of other tools are ignored."""
    entries: dict[str, str] = {}
    for entry in messages(data, Field.MODEL_METADATA):
        pair = {number: value for number, value in fields(entry) if isinstance(value, memoryview)}
        try:
            key, value = (str(pair[number], "utf-8") for number in (Field.KEY, Field.VALUE))
        except (KeyError, UnicodeDecodeError) as error:
            raise FormatError("The metadata is broken: export it again.") from error
        if not key.startswith(PREFIX):
            continue
        if key in entries:
            raise FormatError(f"The metadata key {shown(key)} is repeated: export it again.")
        entries[key] = value
    return entries


def _entry(key: str, value: str) -> bytes:
    return encode(Field.KEY, key.encode()) + encode(Field.VALUE, value.encode())


def _skeleton(encoded: str) -> bytes:
    """Return the prefill model without weights."""
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise FormatError("elman.prefill is not base64: export it again.") from error


def _check_sizes(metadata: Metadata, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Compare what depends on the size of the states with the graph."""
    if metadata.cell in STATES:
        num_states = metadata.num_layers * len(STATES[metadata.cell])
        if shapes != ((metadata.hidden_size,),) * num_states:
            raise FormatError(
                f"The states do not fit {metadata.num_layers} {metadata.cell} layers of "
                f"{metadata.hidden_size} units: export it again."
            )
    sizes = [math.prod(shape) for shape in shapes]
    for name, rows in metadata.initial_states.items():
        if [len(row) for row in rows] != [FLOAT_BYTES * size for size in sizes]:
            raise FormatError(f"The initial state {name!r} does not fit the graph's states: export it again.")
    for name, probe in metadata.probes.items():
        if probe.num_inputs != sum(sizes):
            raise FormatError(f"The probe {name} reads {probe.num_inputs} numbers, the states hold {sum(sizes)}.")
