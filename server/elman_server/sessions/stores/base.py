"""What every store does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


Record: TypeAlias = Any  # encoded, bytes; in a store that keeps objects a `records.Head` or `records.Segment` itself


@dataclass(frozen=True, slots=True)
class Stored:
    """A session's head and its place in the store.

    Attributes:
        head: the record.
        revision: grows with every commit and never comes back, not even after deletion.
        expires: unix seconds.
    """

    head: Record
    revision: int
    expires: float


class Store(Protocol):
    """Keeps heads and segments by session id.

    A missing session is SessionNotFoundError, SessionExpiredError or SessionEvictedError; a store that cannot be
    reached is StoreUnavailableError. Every call is atomic: after an error that is not StoreUnavailableError nothing
    has changed, and what returned is kept.

    Attributes:
        keeps_objects: whether records are kept as they are: they never leave the process, so nothing is encoded.
        is_shared: whether other processes may change the sessions.
        in_use: says of a session whether a turn of this process runs on it; such do not expire.
    """

    keeps_objects: bool
    is_shared: bool
    in_use: Callable[[str], bool]

    async def create(self, name: str, head: Record, expires: float, segments: Sequence[Record] = ()) -> int:
        """Keep a new session; return its revision.

        Raises:
            SessionExistsError: the name is taken.
            QuotaError: there is no room and nothing may be evicted.
        """

    async def load(self, name: str) -> Stored:
        """Return a session."""

    async def commit(
        self,
        name: str,
        revision: int,
        head: Record,
        expires: float,
        segments: Sequence[Record] = (),
        *,
        keep: int | None = None,
        place: int = 0,
    ) -> int:
        """Replace the head and add segments, if the revision still holds; return the new one.

        Of the segments that are there only the `keep` oldest stay, all if it is None; `place` is the index of the first
        of those that are added.

        Raises:
            RevisionMismatchError: the revision does not hold.
        """

    async def delete(self, name: str, revision: int | None) -> None:
        """Delete a session, if the revision still holds; None: whatever it is."""

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return up to `limit` sessions in name order, from the first name after `after`; expired ones too.

        Fewer than `limit` are the last.
        """

    async def segments(self, name: str, start: int = 0, end: int | None = None) -> list[Record]:
        """Return a session's segments `start` to `end` (indices, `end` not included), the oldest first."""

    async def num_sessions(self) -> int:
        """Return how many sessions there are; some may have expired."""

    async def close(self) -> None:
        """Close files and connections; no call may follow."""
