"""Models: the catalogue of what is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elman_server.errors import ModelNotFoundError, StartingError
from elman_server.requests import Limits
from elman_server.state import Memory
from elman_server.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elman_server.artefact import Artefact


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One measurement of a model's loss, from its artefact."""

    corpus_sha256: str
    protocol: str
    nats_per_character: float
    standard_error: float
    num_characters: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a served model.

    Attributes:
        cell: `elman`, `gru`, `lstm` or `other`.
        num_layers, hidden_size, num_parameters: 0 where unknown or without meaning.
        digest: SHA-256 of the artefact, 64 hex digits.
        fingerprint: names the arithmetic that the text depends on, beside the digest and the seed.
        initial: what a new session starts from.
    """

    name: str
    version: str
    cell: str
    num_layers: int
    hidden_size: int
    num_parameters: int
    vocabulary: Vocabulary
    digest: str
    fingerprint: str
    initial: Memory
    evaluations: tuple[Evaluation, ...]
    limits: Limits = Limits()

    @property
    def resource(self) -> str:
        """The name that a session is pinned to."""
        return f"models/{self.name}/versions/{self.version}"


def describe(artefact: Artefact, initial: Memory, fingerprint: str) -> ModelInfo:
    """Return what the catalogue says of a loaded artefact."""
    return ModelInfo(
        name=artefact.name,
        version=artefact.version,
        cell=artefact.cell,
        num_layers=artefact.num_layers,
        hidden_size=artefact.hidden_size,
        num_parameters=artefact.num_parameters,
        vocabulary=artefact.vocabulary,
        digest=artefact.digest,
        fingerprint=fingerprint,
        initial=initial,
        evaluations=tuple(Evaluation(**record) for record in artefact.evaluation),
    )


class Models:
    """The served models by name; empty and not to be asked until `load`."""

    def __init__(self, models: Iterable[ModelInfo] | None = None) -> None:
        self._models: dict[str, ModelInfo] | None = None
        if models is not None:
            self.load(models)

    def load(self, models: Iterable[ModelInfo]) -> None:
        """Say what is served."""
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}

    def list(self) -> list[ModelInfo]:
        """Return every served model, ordered by name."""
        return list(self._loaded().values())

    def get(self, name: str, version: str | None = None) -> ModelInfo:
        """Return one model, of exactly `version` if given; raises ModelNotFoundError."""
        model = self._loaded().get(name)
        if model is None:
            raise ModelNotFoundError(f"models/{name}")
        if version not in {None, model.version}:
            raise ModelNotFoundError(f"models/{name}/versions/{version}")
        return model

    def _loaded(self) -> dict[str, ModelInfo]:
        if self._models is None:
            raise StartingError
        return self._models
