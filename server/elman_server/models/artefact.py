"""Reading an artefact: the checks are those of `elman_format`, the same that the exporter wrote it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elman_format import FormatError, operators, parse
from elman_format.file import MAX_BYTES
from elman_server.domain.errors import ArtefactError
from elman_server.domain.vocabulary import Vocabulary
from elman_server.models.read_outs import Probe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Artefact:
    """A checked file.

    Attributes:
        step: the main graph, ready for onnxruntime.
        prefill: the prefill graph, ready too; None if there is none.
        operators: the names of what both graphs compute with.
        state_shapes: of one row of each state.
        initial_states: name to one row of each state, flat little-endian float32; none: zeros.
        labels: what the logits score instead of the vocabulary; empty: the vocabulary.
        probes: read-outs of the state.
        digest: SHA-256, 64 hex digits.
        self_check: the SHA-256 of a portable model's self-check; empty: its arithmetic is the machine's.
    """

    step: bytes = field(repr=False)
    prefill: bytes | None = field(repr=False)
    operators: frozenset[str] = field(repr=False)
    state_shapes: tuple[tuple[int, ...], ...]
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
    self_check: str = ""

    @property
    def output_size(self) -> int:
        """The width of the logits."""
        return len(self.labels) or len(self.vocabulary)


def read_artefact(path: Path) -> Artefact:
    """Read and check a file.

    Raises:
        ArtefactError: one sentence that names the file and what violates the format.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtefactError(f"{path}: The file is larger than {MAX_BYTES:,} bytes.")
        file = parse(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise ArtefactError(f"{path}: {error}") from error
    own = file.metadata
    return Artefact(
        step=file.data,
        prefill=file.prefill,
        operators=operators(file.data) | operators(file.prefill or b""),
        state_shapes=file.state_shapes,
        name=own.name,
        version=own.version,
        vocabulary=Vocabulary(own.vocabulary),
        cell=own.cell,
        num_layers=own.num_layers,
        hidden_size=own.hidden_size,
        num_parameters=own.num_parameters,
        initial_states=own.initial_states,
        evaluation=tuple(own.evaluation),
        labels=tuple(own.labels),
        probes=tuple(Probe.of(name, probe) for name, probe in own.probes.items()),
        digest=file.digest,
        self_check=own.self_check,
    )
