"""A session as the server last showed it, and what it has read and written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from elman_client._types.sampling import Sampling
from elman_client._types.value import Value


class SessionState(StrEnum):
    """Where a session is in its life."""

    UNSPECIFIED = "UNSPECIFIED"  # one that this client does not know yet
    ACTIVE = "ACTIVE"  # idle, ready for a turn
    GENERATING = "GENERATING"  # a turn is running; the rest shows the session before it
    EXPIRED = "EXPIRED"  # past its lifetime and not yet deleted; only lists show it
    UNREADABLE = "UNREADABLE"  # its record is damaged, or its key is missing; only lists show it


@dataclass(frozen=True)
class ForkedFrom(Value):
    """The session that another was made from, and how much of its transcript that one has."""

    name: str
    position: int


@dataclass(frozen=True)
class SessionInfo(Value):
    """A session at one moment.

    Attributes:
        name: ``sessions/{session}``.
        model: The version it is pinned to, ``models/{model}/versions/{version}``.
        model_digest: SHA-256 of that artefact, 64 hex digits.
        state: Where it is in its life.
        create_time: When it was created, UTC.
        update_time: When a turn or an update was last committed, UTC.
        expire_time: When it expires if it stays idle, UTC.
        etag: Changes with every commit; send it back to act only on what you saw.
        position: Characters in the transcript, read and written.
        turn_count: Committed turns.
        state_digest: SHA-256 of the recurrent state and the pending character, 64 hex digits;
            two sessions with equal digests continue alike.
        seed: Used by turns that set none.
        labels: Your own, read-only.
        forked_from: What it was made from; ``None``: it began by itself.
        initial_state: Where it started, one of its model's.
        fingerprint: Names the arithmetic that ran the last turn. Where the model's is another one,
            further turns go another way than on the server that ran it; empty if unknown.
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
    forked_from: ForkedFrom | None = None
    initial_state: str = "default"
    fingerprint: str = ""


@dataclass(frozen=True)
class TranscriptTurn(Value):
    """One committed turn: ``[start, prompt_end)`` was read, ``[prompt_end, end)`` was generated.

    ``seed`` is what it was sampled with; 0 where nothing was generated. ``sampling`` is ``None`` for
    an append. ``fingerprint`` names the arithmetic that ran it, as a model's does.
    """

    start: int
    prompt_end: int
    end: int
    seed: int
    request_id: str = ""
    sampling: Sampling | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class ReplayedTurn(Value):
    """The result of a turn that was rerun.

    Attributes:
        turn: The turn as it was committed.
        difference_at: First position of another character; ``None``: the text is equal.
        is_state_equal: The state after it is equal, bit for bit, or nothing is known of it.
        is_fingerprint_equal: The arithmetic is the one that ran the turn.
        end_position: The session's, where the replay ends.
    """

    turn: TranscriptTurn
    difference_at: int | None
    is_state_equal: bool
    is_fingerprint_equal: bool
    end_position: int

    @property
    def is_equal(self) -> bool:
        """Whether text and state are equal."""
        return self.difference_at is None and self.is_state_equal


@dataclass(frozen=True)
class Transcript(Value):
    """The text of positions ``[start, end)`` and the committed turns that touch them."""

    text: str
    start: int
    end: int
    turns: tuple[TranscriptTurn, ...]
