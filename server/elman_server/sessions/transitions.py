"""Commits: how a turn's beginning, progress and end change the record of its session. No store, no clock."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from elman_server.domain.events import FinishReason
from elman_server.sessions.records import Outcome, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elman_server.domain.state import SessionState
    from elman_server.sessions.records import Head

CHECKPOINT_CHARS: Final = 4096  # between two checkpoints; a young session has none and stays small
NUM_RECENT: Final = 32  # turns that are found at once by their request id; for older ones all segments are read
KEY_BYTES: Final = 8  # that the head keeps of a request id; the turn's first segment has all of it
OLD_KEY_BYTES: Final = 4  # of an older one: enough to know of nearly every new id that it is new


LEASE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Durability:
    """When a running turn becomes durable, and what if it cannot.

    Attributes:
        lease_seconds: until a server that is not heard of has lost its turn.
        commit_chars, commit_seconds: a long turn becomes durable after that many characters, or that time.
        patience_seconds: how long turns continue while the store cannot be reached.
    """

    lease_seconds: float = LEASE_SECONDS
    commit_chars: int = 4096
    commit_seconds: float = 2.0
    patience_seconds: float = 10.0


class Change(NamedTuple):
    """A new head, segments to add, and how many of those that are there to keep; None: all."""

    head: Head
    segments: tuple[Segment, ...] = ()
    keep: int | None = None


def key_of(request_id: bytes) -> bytes:
    """Return what the head keeps of a request id: a hash, because the ids of UUIDv7 begin alike."""
    return hashlib.blake2b(request_id, digest_size=KEY_BYTES).digest()


def new_etag() -> int:
    """Return an etag that no session ever had."""
    return secrets.randbits(64)


def advanced(
    head: Head, prompt: Sequence[int], sampled: Sequence[int], state: SessionState, lease_expires: float
) -> Change:
    """Make durable what the open turn has read and sampled since the last time; `state` is the one after it."""
    opened = head.open
    assert opened is not None
    segment, checkpoint = _part(head, prompt, sampled, state)
    opened = replace(
        opened,
        lease_expires=lease_expires,
        position=segment.end,
        num_segments=opened.num_segments + 1,
        checkpoint=checkpoint,
        prompt=b"",
        state=state,
    )
    return Change(replace(head, open=opened), (segment,))


def closed(head: Head, prompt: Sequence[int], sampled: Sequence[int], state: SessionState, outcome: Outcome) -> Change:
    """Commit the open turn, with what it has read and sampled since it was last durable."""
    opened = head.open
    assert opened is not None
    segment, checkpoint = _part(head, prompt, sampled, state, outcome)
    recent, older = head.recent, head.older
    if (request_id := opened.parameters.request_id) and not opened.is_continuation:
        recent = [*recent, (key_of(request_id), head.num_segments)]
        older += b"".join(key[:OLD_KEY_BYTES] for key, _ in recent[:-NUM_RECENT])
        recent = recent[-NUM_RECENT:]
    head = replace(
        head,
        position=segment.end,
        turn_count=head.turn_count + (not opened.is_continuation),
        state=state,
        etag=new_etag(),
        num_segments=opened.num_segments + 1,
        checkpoint=checkpoint,
        last_token=opened.token,
        recent=recent,
        older=older,
        open=None,
        fingerprint=opened.parameters.fingerprint,
    )
    return Change(head, (segment,))


def dropped(head: Head) -> Change:
    """Drop the open turn as if it had not been run, or not been continued."""
    assert head.open is not None
    return Change(replace(head, last_token=head.open.token, open=None), keep=head.num_segments)


def abandoned(head: Head) -> Change:
    """End an open turn whose server is down: keep what is durable of it, unless it was to be rolled back."""
    opened = head.open
    assert opened is not None
    if opened.parameters.rollback or opened.state is None:
        return dropped(head)
    digest = bytes.fromhex(opened.state.digest())
    return closed(head, [], [], opened.state, Outcome(FinishReason.CANCELLED, "", digest))


def _part(
    head: Head, prompt: Sequence[int], sampled: Sequence[int], state: SessionState, outcome: Outcome | None = None
) -> tuple[Segment, int]:
    """Return the open turn's next segment, and the position of the last checkpoint after it."""
    opened = head.open
    assert opened is not None
    parameters = opened.parameters if opened.position == opened.start else None
    end = opened.position + len(prompt) + len(sampled)
    is_due = end - opened.checkpoint >= CHECKPOINT_CHARS
    checkpoint = state if is_due else None
    segment = Segment.of(opened.position, prompt, sampled, parameters=parameters, outcome=outcome, state=checkpoint)
    return segment, end if is_due else opened.checkpoint
