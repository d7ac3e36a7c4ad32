"""Events: what happens in a turn, as callers see it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman_server.domain.requests import SamplingRequest


class FinishReason(enum.Enum):
    """Why a turn ended without an error."""

    MAX_CHARS = "max_chars"
    STOP_STRING = "stop_string"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    SERVER_DRAINING = "server_draining"


@dataclass(frozen=True, slots=True)
class EffectiveDistribution:
    """What a character was sampled from, after bias, penalty, temperature and filters; in nats.

    Attributes:
        top: the likeliest of the kept characters first.
        uniform: the number on [0, 1) that chose it.
        below: the probability of the kept characters before it, in the sampler's order.
    """

    log_probability: float
    top: tuple[tuple[str, float], ...]
    num_kept: int
    uniform: float
    below: float


@dataclass(frozen=True, slots=True)
class CharacterDetail:
    """How likely one character was, in nats, under the model's own distribution (no filter, temperature 1).

    Attributes:
        text: the character; of a byte-level model U+0000 to U+00FF for the byte.
        log_probability: None at position 0, where nothing came before.
        top: the likeliest first.
        labels: what was read out after it, in the read-out's order.
        effective: what it was sampled from, if that was asked for.
    """

    text: str
    log_probability: float | None
    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, float], ...] = ()
    effective: EffectiveDistribution | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The first event: what the turn will do. `sampling` has every parameter set."""

    sampling: SamplingRequest
    max_chars: int
    start_position: int
    prompt_chars: int
    model_digest: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text as it is sampled.

    Attributes:
        position: the session's after it.
        committed_position: up to where the turn is durable; 0 without a session.
    """

    text: str
    position: int
    details: tuple[CharacterDetail, ...] = ()
    committed_position: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event: why the turn ended and where the session now is, committed."""

    reason: FinishReason
    prompt_chars: int
    generated_chars: int
    position: int
    state_digest: str
    etag: str = ""
    stop_string: str = ""


Event = Started | Chunk | Finished
