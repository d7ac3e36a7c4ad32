"""A session as callers see it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elman_server.state import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elman_server import records


class SessionStatus(enum.Enum):
    """Where a session is in its life."""

    ACTIVE = "active"  # at rest, ready for a turn
    GENERATING = "generating"  # a turn is running
    EXPIRED = "expired"  # its time is over; only lists show it


@dataclass(frozen=True, slots=True)
class Expiration:
    """When a session is forgotten: after `ttl` idle seconds or at `expire_time`, unix seconds; None: the default."""

    ttl: float | None = None
    expire_time: float | None = None


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What callers see of a session; times are unix seconds, `model` is the pinned version's full name."""

    name: str
    model: str
    model_digest: str
    status: SessionStatus
    create_time: float
    update_time: float
    expire_time: float
    etag: str
    position: int
    turn_count: int
    state_digest: str
    seed: int
    labels: Mapping[str, str]
    initial_state: str = DEFAULT


@dataclass(frozen=True, slots=True)
class Turn:
    """One committed turn: positions `start` to `prompt_end` were fed, from there to `end` drawn."""

    start: int
    prompt_end: int
    end: int
    seed: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a session has read and written from `start` to `end`."""

    text: str
    start: int
    end: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; an empty token ends it."""

    sessions: tuple[SessionInfo, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps sessions of a model and with certain labels."""

    model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def matches(self, head: records.Head) -> bool:
        """Whether a session is kept."""
        of_model = self.model in {None, head.model}
        return of_model and all(head.labels.get(key) == value for key, value in self.labels.items())
