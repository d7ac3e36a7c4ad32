"""A session as the server last showed it, and what it has read and written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class SessionState(StrEnum):
    """Where a session is in its life."""

    UNSPECIFIED = "UNSPECIFIED"  # one that this client does not know yet
    ACTIVE = "ACTIVE"  # at rest, ready for a turn
    GENERATING = "GENERATING"  # a turn is running; the rest shows the session before it
    EXPIRED = "EXPIRED"  # past its time and not yet forgotten; only lists show it


@dataclass(frozen=True)
class SessionInfo:
    """A session at one moment.

    Attributes:
        name: ``sessions/{session}``.
        model: The version it is pinned to, ``models/{model}/versions/{version}``.
        model_digest: SHA-256 of that artefact, 64 hex digits.
        state: Where it is in its life.
        create_time: When it was created, UTC.
        update_time: When a turn or an update was last committed, UTC.
        expire_time: When it will be forgotten if nothing happens to it, UTC.
        etag: Changes with every commit; send it back to act only on what you saw.
        position: Characters in the transcript, read and written.
        turn_count: Committed turns.
        state_digest: SHA-256 of the recurrent state and the pending character, 64 hex digits;
            two sessions with equal digests continue alike.
        seed: Used by turns that bring none.
        labels: Your own, read-only.
        initial_state: Where it started, one of its model's.
    """

    name: str
    model: str
    model_digest: str
    state: SessionState
    create_time: datetime
    update_time: datetime
    expire_time: datetime
    etag: str
    position: int
    turn_count: int
    state_digest: str
    seed: int
    labels: Mapping[str, str] = field(hash=False)
    initial_state: str = "default"


@dataclass(frozen=True)
class TranscriptTurn:
    """One committed turn: ``[start, prompt_end)`` was fed, ``[prompt_end, end)`` was drawn.

    ``seed`` is what its draws came from; 0 where nothing was drawn.
    """

    start: int
    prompt_end: int
    end: int
    seed: int


@dataclass(frozen=True)
class Transcript:
    """The text of positions ``[start, end)`` and the committed turns that touch them."""

    text: str
    start: int
    end: int
    turns: tuple[TranscriptTurn, ...]
