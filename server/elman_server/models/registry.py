"""Models: the catalogue of what is served."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from elman_server.domain.errors import InvalidFieldError, ModelMismatchError, ModelNotFoundError, StartingError
from elman_server.domain.requests import Limits
from elman_server.domain.state import DEFAULT, SessionState
from elman_server.domain.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

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


_Infos: TypeAlias = "list[ModelInfo]"  # within Models `list` is its method


class Models:
    """The served models; empty and not to be asked until `load`.

    Several versions of a name may be served. The *default*, which a name without a version means, is the highest that
    is not retired; a retired one is for the sessions that are pinned to it, and for callers who name its version.
    """

    def __init__(self, models: Iterable[ModelInfo] | None = None) -> None:
        self._models: _Infos | None = None
        self._retired: set[str] = set()  # digests
        if models is not None:
            self.load(models)

    def load(self, models: Iterable[ModelInfo]) -> None:
        """Say what is served."""
        self._models = list(models)

    def add(self, model: ModelInfo) -> None:
        """Serve a model, too."""
        self.remove(model)
        self._loaded().append(model)
        self._retired.discard(model.digest)

    def retire_others(self, digests: Collection[str]) -> None:
        """Retire every model but these."""
        self._retired = {model.digest for model in self._loaded()} - set(digests)

    def is_retired(self, model: ModelInfo) -> bool:
        """Whether a model is kept for its sessions alone."""
        return model.digest in self._retired

    def remove(self, model: ModelInfo) -> None:
        """Serve a model no longer."""
        self._models = [other for other in self._loaded() if other.digest != model.digest]
        self._retired.discard(model.digest)

    def list(self) -> list[ModelInfo]:
        """Return every model that is not retired, ordered by name and version."""
        return sorted((model for model in self._loaded() if not self.is_retired(model)), key=_order)

    def get(self, name: str, version: str | None = None) -> ModelInfo:
        """Return one model, of exactly `version` if given; raises ModelNotFoundError."""
        named = [model for model in self._loaded() if model.name == name]
        current = [model for model in named if not self.is_retired(model)]
        if version is None:
            if not current:
                raise ModelNotFoundError(f"models/{name}")
            return max(current, key=_order)
        for model in [*current, *named]:
            if model.version == version:
                return model
        raise ModelNotFoundError(f"models/{name}/versions/{version}" if named else f"models/{name}")

    def pinned(self, name: str, digest: str) -> ModelInfo:
        """Return the model that a session is pinned to.

        Raises:
            ModelMismatchError: other versions of it are served.
            ModelNotFoundError: none is.
        """
        found = [model for model in self._loaded() if model.digest == digest]
        if found:
            return next((model for model in found if model.name == name), found[0])
        others = ", ".join(model.digest[:12] for model in self.list() if model.name == name)
        if not others:
            raise ModelNotFoundError(f"models/{name}")
        raise ModelMismatchError(
            f"the session is pinned to {digest[:12]} of models/{name}, this server has {others}; create a new session"
        )

    def _loaded(self) -> _Infos:
        if self._models is None:
            raise StartingError
        return self._models


def order(name: str, version: str) -> tuple[str, list[tuple[int, str]]]:
    """Return what models are sorted by: name, then version, in which numbers count as numbers."""
    words = re.findall(r"\d+|\D+", version)
    return name, [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def _order(model: ModelInfo) -> tuple[str, list[tuple[int, str]]]:
    return order(model.name, model.version)
