"""Inspections: what a job may ask of the engine besides text, and what it reports; tensors by their index."""

from __future__ import annotations

import msgspec

from elman_server.domain.inspection import (
    ExplainedCandidate,
    ExplainedLayer,
    Table,
    Units,
    WeightsOfGate,
)


class Describe(msgspec.Struct, tag=True, frozen=True):
    """Report whether the gates are known."""


class Described(msgspec.Struct, tag=True, frozen=True):
    """Why the gates are absent; "" if they are known."""

    gates_absent: str


class Watch(msgspec.Struct, tag=True, frozen=True):
    """Report units after every character of the prompt from `start` on, and `num_changed` of the largest changes."""

    units: tuple[Units, ...]
    start: int = 0
    num_changed: int = 0


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A unit of the state, counted through all tensors, before and after a character."""

    unit: int
    before: float
    after: float


class Watched(msgspec.Struct, tag=True, frozen=True):
    """The next characters that were watched.

    Attributes:
        num_chars: how many.
        values: for each of `Watch.units` float32 [num_chars, its units].
        changes: for each character.
    """

    num_chars: int
    values: list[bytes]
    changes: list[list[Change]]


class Explain(msgspec.Struct, tag=True, frozen=True):
    """Report the terms of the step that reads the last character of the prompt; no candidate is one of `hidden`."""

    num_candidates: int = 0
    num_contributions: int = 0
    hidden: tuple[int, ...] = ()


class Explained(msgspec.Struct, tag=True, frozen=True):
    """The terms of one step; without gates `gates_absent` says why, and the candidates have no contributions."""

    layers: list[ExplainedLayer]
    logits: list[float]
    candidates: list[ExplainedCandidate]
    gates_absent: str = ""


class Compare(msgspec.Struct, tag=True, frozen=True):
    """Report how each unit follows a label, which each character of the prompt from `start` on has."""

    labels: list[float]
    start: int = 0


class Compared(msgspec.Struct, tag=True, frozen=True):
    """Of each unit of the state, counted through all tensors: correlation (NaN: it never changes) and means."""

    correlations: list[float]
    means_labelled: list[float]
    means_other: list[float]


class ReadWeights(msgspec.Struct, tag=True, frozen=True):
    """Report the weights but those of the ids that are `hidden`."""

    hidden: tuple[int, ...] = ()


class WeightsRead(msgspec.Struct, tag=True, frozen=True):
    """The weights; none, and why, if they are absent or more than MAX_WEIGHTS."""

    layers: list[list[WeightsOfGate]] = []
    output_weight: Table | None = None
    output_bias: Table | None = None
    refusal: str = ""


Ask = Describe | Watch | Explain | Compare | ReadWeights
Report = Described | Watched | Explained | Compared | WeightsRead
