"""Models: the catalogue of what is served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elman_server.domain.errors import InvalidFieldError, ModelNotFoundError, StartingError
from elman_server.domain.requests import Limits
from elman_server.domain.state import DEFAULT, SessionState
from elman_server.domain.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from elman_server.models.artefact import Artefact


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One measurement of a model's loss, from its artefact."""

    corpus_sha256: str
    protocol: str
    nats_per_character: float
    standard_error: float
    num_characters: int


@dataclass(frozen=True, slots=True)
class ReadOut:
    """A probe as callers see it: its labels, and its accuracy on a number of held-out characters."""

    name: str
    labels: tuple[str, ...]
    accuracy: float
    num_held_out: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a served model.

    Attributes:
        cell: `elman`, `gru`, `lstm` or `other`.
        num_layers, hidden_size, num_parameters: 0 where unknown or without meaning.
        digest: SHA-256 of the artefact, 64 hex digits.
        fingerprint: names the arithmetic that the text depends on, beside the digest and the seed.
        initial: what a new session starts from.
        initial_states: what else it may start from, by name, in name order.
        labels: of a tagging model, which has them for output; empty: it predicts the next character.
        read_outs: of its states.
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
    initial: SessionState
    evaluations: tuple[Evaluation, ...]
    limits: Limits = Limits()
    initial_states: dict[str, SessionState] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    read_outs: tuple[ReadOut, ...] = ()

    @property
    def resource(self) -> str:
        """The name that a session is pinned to."""
        return f"models/{self.name}/versions/{self.version}"

    def start(self, name: str) -> SessionState:
        """Return the initial state of that name; raises InvalidFieldError."""
        if name == DEFAULT:
            return self.initial
        if name not in self.initial_states:
            raise InvalidFieldError(
                "initial_state", f"is {name[:80]!a}; {self.resource} has {', '.join([DEFAULT, *self.initial_states])}"
            )
        return self.initial_states[name]

    def labels_of(self, read_out: str) -> tuple[str, ...]:
        """Return the labels of a read-out; "": of the model's own output. Raises InvalidFieldError."""
        if not read_out:
            return self.labels
        for known in self.read_outs:
            if known.name == read_out:
                return known.labels
        names = ", ".join(known.name for known in self.read_outs) or "none"
        raise InvalidFieldError("read_out", f"is {read_out[:80]!a}; {self.resource} has {names}")


def describe(artefact: Artefact, initial_states: Mapping[str, SessionState], fingerprint: str) -> ModelInfo:
    """Return what the catalogue says of a loaded artefact."""
    named = dict(initial_states)
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
        initial=named.pop(DEFAULT),
        evaluations=tuple(Evaluation(**record) for record in artefact.evaluation),
        initial_states=named,
        labels=artefact.labels,
        read_outs=tuple(ReadOut(p.name, p.labels, p.accuracy, p.num_held_out) for p in artefact.probes),
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
