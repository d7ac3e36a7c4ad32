"""Reading and writing artefacts, as docs/artefact.md specifies."""

import base64
import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import onnx

from elman_export.artefacts.graph import check_contract, check_self_contained
from elman_export.artefacts.metadata import Metadata
from elman_export.errors import ArtefactError

# The encoded start of the last entry: field 14 (metadata_props), 80 bytes, key, 64-byte value.
_TAIL_START = b"\x72\x50\x0a\x0celman.digest\x12\x40"
_TAIL_SIZE = len(_TAIL_START) + 64
_PREFILL = "elman.prefill"
# Protobuf's own limit for one message.
_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Artefact:
    """One artefact, checked.

    Attributes:
        data: The whole file.
        digest: SHA-256 of all but the tail, 64 hex digits: the model's identity.
        metadata: Name, version, vocabulary and the rest.
        step: The main graph, weights included.
        prefill: The prefill graph with the weights, ready to load; None without one.
        state_shapes: The shape of one row of each state.
    """

    data: bytes
    digest: str
    metadata: Metadata
    step: onnx.ModelProto
    prefill: bytes | None
    state_shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def build(cls, step: onnx.ModelProto, metadata: Metadata, prefill: onnx.ModelProto | None = None) -> "Artefact":
        """Join graphs and metadata; the result passed every check of `from_bytes`.

        Args:
            step: The main graph.
            metadata: The metadata of the file.
            prefill: The prefill graph without the initializers that it shares with `step`.

        Raises:
            ArtefactError: The format does not allow it.
        """
        entries = metadata.entries()
        if prefill is not None:
            entries[_PREFILL] = base64.b64encode(prefill.SerializeToString()).decode()
        return cls._sealed(step, entries)

    def with_metadata(self, metadata: Metadata) -> "Artefact":
        """The same graphs with other metadata, and so another digest.

        Raises:
            ArtefactError: The format does not allow it.
        """
        entries = metadata.entries()
        if (prefill := _entries(self.step).get(_PREFILL)) is not None:
            entries[_PREFILL] = prefill
        return self._sealed(self.step, entries)

    @classmethod
    def _sealed(cls, step: onnx.ModelProto, entries: dict[str, str]) -> "Artefact":
        model = onnx.ModelProto()
        model.CopyFrom(step)
        onnx.helper.set_model_props(model, entries)
        if model.ByteSize() > _MAX_BYTES - _TAIL_SIZE:
            raise ArtefactError("The model is larger than the 2 GiB that one ONNX file can hold: make it smaller.")
        body = model.SerializeToString()
        return cls.from_bytes(body + _tail(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Artefact":
        """Check and read a whole file; no other file is opened.

        Raises:
            ArtefactError: It is cut, changed, not an artefact, or violates the format.
        """
        body, tail = data[:-_TAIL_SIZE], data[-_TAIL_SIZE:]
        if not tail.startswith(_TAIL_START):
            raise ArtefactError("Not an artefact, or cut short: it does not end with elman.digest. Export it again.")
        if tail != _tail(body):
            raise ArtefactError("The file was changed after it was written: the digest differs. Export it again.")
        step = _parse(data)
        entries = _entries(step)
        check_self_contained(step)
        metadata = Metadata.from_entries(entries)
        state_shapes = check_contract(step, metadata, ["batch"])
        prefill = None
        if _PREFILL in entries:
            prefill = _join(entries[_PREFILL], step)
            joined = _parse(prefill)
            check_self_contained(joined)
            check_contract(joined, metadata, ["time", "batch"])
        digest = tail[-64:].decode()
        return cls(data, digest, metadata, step, prefill, state_shapes)

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            ArtefactError: The file cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(self.data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise ArtefactError(f"Cannot write {path}: {error.strerror}.") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_artefact(
    path: Path, step: onnx.ModelProto, metadata: Metadata, prefill: onnx.ModelProto | None = None
) -> Artefact:
    """Build and save in one call; see `Artefact.build` and `Artefact.save`."""
    artefact = Artefact.build(step, metadata, prefill)
    artefact.save(path)
    return artefact


def read_artefact(path: Path) -> Artefact:
    """Read a file; see `Artefact.from_bytes`.

    Raises:
        ArtefactError: The file cannot be read or is no artefact; the message begins with its path.
    """
    try:
        return Artefact.from_bytes(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"Cannot read {path}: {error.strerror}.") from error
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error


def _tail(body: bytes) -> bytes:
    return _TAIL_START + hashlib.sha256(body).hexdigest().encode()


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError belongs to a package not imported here
        raise ArtefactError("Not an ONNX model: its bytes cannot be parsed. Export it again.") from error


def _entries(model: onnx.ModelProto) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in model.metadata_props:
        if entry.key in entries:
            raise ArtefactError(f"The metadata key {entry.key:.80} is repeated: export it again.")
        entries[entry.key] = entry.value
    return entries


def _join(encoded: str, step: onnx.ModelProto) -> bytes:
    """The prefill graph with the main graph's weights: messages joined end to end are merged."""
    weights = onnx.ModelProto()
    weights.graph.initializer.extend(step.graph.initializer)
    try:
        return base64.b64decode(encoded, validate=True) + weights.SerializeToString()
    except ValueError as error:
        raise ArtefactError("elman.prefill is not base64: export it again.") from error
