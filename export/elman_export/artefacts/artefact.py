"""Reading and writing artefacts. The checks are those of `elman_format`, the same that a server reads with."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from elman_export.errors import ArtefactError
from elman_format import File, FormatError, Metadata, parse, seal


@dataclass(frozen=True, slots=True, repr=False)
class Artefact:
    """One artefact, checked.

    Attributes:
        file: The whole file as the format sees it.
    """

    file: File

    @property
    def step(self) -> onnx.ModelProto:
        """The main graph, weights included; parsed again each time, because it is as large as the file."""
        return onnx.load_model_from_string(self.file.data)

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return self.file.data

    @property
    def digest(self) -> str:
        """SHA-256 of all but the tail, 64 hex digits: the model's identity."""
        return self.file.digest

    @property
    def metadata(self) -> Metadata:
        """Name, version, vocabulary and the rest."""
        return self.file.metadata

    @property
    def prefill(self) -> bytes | None:
        """The prefill graph with the weights, ready to load; None without one."""
        return self.file.prefill

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of one row of each state."""
        return self.file.state_shapes

    def __repr__(self) -> str:
        own = self.metadata
        return f"Artefact({own.name!r}, version={own.version!r}, cell={own.cell!r}, digest={self.digest[:12]!r}...)"

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
        return cls._sealed(step, metadata, None if prefill is None else _serialized(prefill))

    def with_metadata(self, metadata: Metadata) -> "Artefact":
        """The same graphs with other metadata, and so another digest.

        Raises:
            ArtefactError: The format does not allow it.
        """
        return self._sealed(self.step, metadata, self.file.skeleton)

    @classmethod
    def _sealed(cls, step: onnx.ModelProto, metadata: Metadata, skeleton: bytes | None) -> "Artefact":
        bare = step
        if step.metadata_props:
            bare = onnx.ModelProto()
            bare.CopyFrom(step)
            del bare.metadata_props[:]
        with format_errors():
            return cls._of(seal(_serialized(bare), metadata, skeleton))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Artefact":
        """Check and read a whole file; no other file is opened.

        Raises:
            ArtefactError: It is cut, changed, not an artefact, or violates the format.
        """
        with format_errors():
            return cls._of(parse(data))

    @classmethod
    def _of(cls, file: File) -> "Artefact":
        if file.prefill is not None:
            _check(file.prefill)
        _check(file.data)
        return cls(file)

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


@contextlib.contextmanager
def format_errors() -> Iterator[None]:
    """Raise the format's errors as the exporter's."""
    try:
        yield
    except FormatError as error:
        raise ArtefactError(str(error)) from error


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return model.SerializeToString()
    except Exception as error:  # protobuf's errors belong to a package not imported here
        raise ArtefactError("The model is larger than one ONNX file can hold: make it smaller.") from error


def _check(data: bytes) -> None:
    """Let onnx check that a model's graph is valid; from its bytes, because parsed weights are as large again."""
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ArtefactError(f"Not a valid ONNX graph: {reason}") from error
    except Exception as error:  # what it raises for other bytes belongs to a package not imported here
        raise ArtefactError("Not an ONNX model: its bytes cannot be parsed. Export it again.") from error
