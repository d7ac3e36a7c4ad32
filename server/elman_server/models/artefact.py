"""The artefact: one ONNX file that describes itself, read and checked before anything runs it.

The format is docs/artefact.md. The checks read the protobuf wire format directly: the server carries no `onnx`,
and a file is refused before onnxruntime sees it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from elman_server.domain.errors import ArtefactError
from elman_server.domain.vocabulary import Vocabulary
from elman_server.models import wire
from elman_server.models.operators import operators
from elman_server.models.read_outs import NAME, Probe, parse_labels, parse_probes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT: Final = "1"
MAX_BYTES: Final = 1 << 30
_TAIL_BYTES: Final = 82  # one metadata entry: elman.digest -> 64 hex digits
_TAIL_HEAD: Final = b"\x72\x50\x0a\x0celman.digest\x12\x40"
_REQUIRED: Final = frozenset({
    "format", "name", "version", "vocabulary", "cell", "num_layers", "hidden_size", "num_parameters",
    "initial_states", "recipe", "evaluation", "exporter", "digest",
})  # fmt: skip
_OPTIONAL: Final = frozenset({"labels", "prefill", "probes"})
_CELLS: Final = frozenset({"elman", "gru", "lstm", "other"})
_DOMAINS: Final = frozenset({"", "ai.onnx", "com.microsoft"})
_SPARSE: Final = "holds sparse weights, which are not supported; store them dense"
_NUMBER: Final = (int, float)
_EVALUATION: Final[Mapping[str, type | tuple[type, ...]]] = {
    "corpus_sha256": str, "protocol": str, "nats_per_character": _NUMBER, "standard_error": _NUMBER,
    "num_characters": int,
}  # fmt: skip


class _Field:
    """Field numbers of onnx.proto (ONNX IR version 10) that the checks look at."""

    MODEL_GRAPH, MODEL_METADATA, MODEL_FUNCTIONS = 7, 14, 25
    KEY, VALUE = 1, 2
    GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
    NODE_ATTRIBUTE, NODE_DOMAIN = 5, 7
    ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
    ATTRIBUTE_SPARSE, ATTRIBUTE_SPARSES = 22, 23
    TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14


@dataclass(frozen=True, slots=True)
class Artefact:
    """A checked file.

    Attributes:
        step: the main graph, ready for onnxruntime.
        prefill: the prefill graph, ready too; None if there is none.
        operators: the names of what both graphs compute with.
        initial_states: name to one row of each state, flat little-endian float32; none: zeros.
        labels: what the logits are of, instead of the vocabulary; empty: of the vocabulary.
        probes: read-outs of the state.
        digest: SHA-256, 64 hex digits.
    """

    step: bytes = field(repr=False)
    prefill: bytes | None = field(repr=False)
    operators: frozenset[str] = field(repr=False)
    name: str
    version: str
    vocabulary: Vocabulary = field(repr=False)
    cell: str
    num_layers: int
    hidden_size: int
    num_parameters: int
    initial_states: Mapping[str, tuple[bytes, ...]] = field(repr=False)
    evaluation: tuple[Mapping[str, Any], ...]
    labels: tuple[str, ...]
    probes: tuple[Probe, ...]
    digest: str

    @property
    def output_size(self) -> int:
        """The width of the logits."""
        return len(self.labels) or len(self.vocabulary)


def read_artefact(path: Path) -> Artefact:
    """Read and check a file.

    Raises:
        ArtefactError: one sentence that names the file and what cannot be honoured.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtefactError(f"{path}: larger than {MAX_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return _parse(data)
    except (wire.WireError, RecursionError) as error:
        raise ArtefactError(f"{path}: is not a whole ONNX file; export it again") from error
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error


def _parse(data: bytes) -> Artefact:
    digest = _check_digest(data)
    metadata = _metadata(data)
    graph = _check_model(data)
    known = _REQUIRED | _OPTIONAL
    if unknown := sorted(key for key in metadata if key not in known):
        raise ArtefactError(f"has the unknown metadata {_shown(f'elman.{unknown[0]}')}; upgrade the server")
    if missing := sorted(_REQUIRED - set(metadata)):
        raise ArtefactError(f"lacks the metadata elman.{missing[0]}; export it again")
    if metadata["cell"] not in _CELLS:
        raise ArtefactError(f"elman.cell is {_shown(metadata['cell'])}; allowed are {', '.join(sorted(_CELLS))}")
    for key in ("recipe", "exporter"):  # not looked at by a server, but no file of ours has other ones
        _json(key, metadata[key], dict)
    prefill = _prefill(metadata["prefill"], graph) if "prefill" in metadata else None
    return Artefact(
        step=data,
        prefill=prefill,
        operators=operators(data) | operators(prefill or b""),
        name=_matching(metadata, "name", NAME.pattern),
        version=_matching(metadata, "version", r"[a-z0-9][a-z0-9.-]{0,62}"),
        vocabulary=_vocabulary(metadata["vocabulary"]),
        cell=metadata["cell"],
        num_layers=int(_matching(metadata, "num_layers", r"\d{1,9}")),
        hidden_size=int(_matching(metadata, "hidden_size", r"\d{1,9}")),
        num_parameters=int(_matching(metadata, "num_parameters", r"\d{1,15}")),
        initial_states=_initial_states(metadata["initial_states"]),
        evaluation=_evaluation(metadata["evaluation"]),
        labels=_labels(metadata["labels"]) if "labels" in metadata else (),
        probes=parse_probes(metadata.get("probes", "{}")),
        digest=digest,
    )


def _check_digest(data: bytes) -> str:
    body, tail = data[:-_TAIL_BYTES], data[-_TAIL_BYTES:]
    if not tail.startswith(_TAIL_HEAD):
        raise ArtefactError("does not end with its digest: it is cut, or not one of ours; export it with elman-export")
    digest = hashlib.sha256(body).hexdigest()
    if tail[len(_TAIL_HEAD) :] != digest.encode():
        raise ArtefactError("does not match its digest: it was changed after export; export it again")
    return digest


def _metadata(data: bytes) -> dict[str, str]:
    """Return the `elman.*` entries without their prefix; the format is checked before anything else is read."""
    entries: dict[str, str] = {}
    for entry in wire.messages(data, _Field.MODEL_METADATA):
        pair = {number: value for number, value in wire.fields(entry) if isinstance(value, memoryview)}
        try:
            key, value = (str(pair[number], "utf-8") for number in (_Field.KEY, _Field.VALUE))
        except (KeyError, UnicodeDecodeError) as error:
            raise ArtefactError("has broken metadata; export it again") from error
        name = key.removeprefix("elman.")
        if name == key:
            continue
        if name in entries:
            raise ArtefactError(f"has {_shown(key)} twice; export it again")
        entries[name] = value
    if entries.get("format") != FORMAT:
        raise ArtefactError(f"has format {_shown(entries.get('format'))}, this server reads {FORMAT}; export it again")
    return entries


def _check_model(data: bytes | memoryview) -> memoryview:
    """Refuse what may not stand in a model; return its graph."""
    if any(True for _ in wire.messages(data, _Field.MODEL_FUNCTIONS)):
        raise ArtefactError("holds model-local functions; inline them before export")
    graphs = list(wire.messages(data, _Field.MODEL_GRAPH))
    if len(graphs) != 1:
        raise ArtefactError("does not hold one graph; export it again")
    _check_graph(graphs[0])
    return graphs[0]


def _check_graph(graph: memoryview) -> None:
    for number, value in wire.fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == _Field.GRAPH_SPARSE:
            raise ArtefactError(_SPARSE)
        if number == _Field.GRAPH_INITIALIZER:
            _check_tensor(value)
        if number == _Field.GRAPH_NODE:
            _check_node(value)


def _check_node(node: memoryview) -> None:
    for domain in wire.messages(node, _Field.NODE_DOMAIN):
        name = str(domain, "utf-8", "replace")
        if name not in _DOMAINS:
            raise ArtefactError(f"uses the operator domain {_shown(name)}; only standard operators are run")
    for attribute in wire.messages(node, _Field.NODE_ATTRIBUTE):
        for number, value in wire.fields(attribute):
            if not isinstance(value, memoryview):
                continue
            if number in {_Field.ATTRIBUTE_GRAPH, _Field.ATTRIBUTE_GRAPHS}:
                _check_graph(value)
            if number in {_Field.ATTRIBUTE_TENSOR, _Field.ATTRIBUTE_TENSORS}:
                _check_tensor(value)
            if number in {_Field.ATTRIBUTE_SPARSE, _Field.ATTRIBUTE_SPARSES}:
                raise ArtefactError(_SPARSE)


def _check_tensor(tensor: memoryview) -> None:
    for number, value in wire.fields(tensor):
        if number == _Field.TENSOR_EXTERNAL or (number == _Field.TENSOR_LOCATION and value != 0):
            raise ArtefactError("keeps weights in another file, which is refused; export it with the weights inside")


def _prefill(encoded: str, graph: memoryview) -> bytes:
    """Return the prefill model with the main graph's weights: protobuf messages are joined end to end."""
    try:
        skeleton = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise ArtefactError("elman.prefill is not base64; export it again") from error
    try:
        _check_model(skeleton)
    except wire.WireError as error:
        raise ArtefactError("elman.prefill is not a whole graph; export it again") from error
    weights = b"".join(_initializers(graph))
    return skeleton + wire.encode(_Field.MODEL_GRAPH, weights)


def _initializers(graph: memoryview) -> Iterator[bytes]:
    for initializer in wire.messages(graph, _Field.GRAPH_INITIALIZER):
        yield wire.encode(_Field.GRAPH_INITIALIZER, bytes(initializer))


def _matching(metadata: Mapping[str, str], key: str, pattern: str) -> str:
    value = metadata[key]
    if not re.fullmatch(pattern, value):
        raise ArtefactError(f"elman.{key} is {_shown(value)}, which does not match {pattern}")
    return value


def _shown(value: str | None) -> str:
    """Return what a file says as a message may repeat it: in one line, and not all of a long one."""
    return ascii(value and value[:80])


def _json(key: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"elman.{key} is not JSON; export it again") from error
    if not isinstance(value, kind):
        raise ArtefactError(f"elman.{key} is not a JSON {kind.__name__}; export it again")
    return value


def _vocabulary(text: str) -> Vocabulary:
    if text == '"bytes"':
        return Vocabulary(None)
    characters = _json("vocabulary", text, list)
    if not all(isinstance(character, str) and len(character) == 1 for character in characters):
        raise ArtefactError("elman.vocabulary holds something else than one-character strings")
    if not characters or len(set(characters)) != len(characters):
        raise ArtefactError("elman.vocabulary is empty or holds a character twice")
    if any("\ud800" <= character <= "\udfff" for character in characters):
        raise ArtefactError("elman.vocabulary holds a lone surrogate, which no text can hold")
    return Vocabulary(tuple(characters))


def _labels(text: str) -> tuple[str, ...]:
    return parse_labels("elman.labels", _json("labels", text, list))


def _evaluation(text: str) -> tuple[Mapping[str, Any], ...]:
    records = _json("evaluation", text, list)
    for record in records:
        if not isinstance(record, dict) or set(record) != set(_EVALUATION):
            raise ArtefactError(f"elman.evaluation holds something else than {', '.join(_EVALUATION)}")
        for key, kind in _EVALUATION.items():
            if not isinstance(record[key], kind):
                raise ArtefactError(f"elman.evaluation has a {key} of another type; export it again")
    return tuple(records)


def _initial_states(text: str) -> dict[str, tuple[bytes, ...]]:
    states = _json("initial_states", text, dict)
    if bad := [name for name in states if not NAME.fullmatch(name)]:
        raise ArtefactError(f"has the initial state {_shown(bad[0])}; its name does not match ^{NAME.pattern}$")
    try:
        return {name: tuple(base64.b64decode(row, validate=True) for row in rows) for name, rows in states.items()}
    except (TypeError, ValueError) as error:
        raise ArtefactError("elman.initial_states holds something else than lists of base64") from error
