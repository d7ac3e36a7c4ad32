"""What every store does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """A session's head and where it stands.

    Attributes:
        head: encoded `records.Head`.
        revision: grows with every commit and never comes back, not even after deletion.
        expires: unix seconds.
    """

    head: bytes
    revision: int
    expires: float


class Store(Protocol):
    """Keeps heads and segments by session id.

    A missing session is SessionNotFoundError, SessionExpiredError or SessionEvictedError; a store that cannot be
    reached is StoreUnavailableError.
    """

    async def create(self, name: str, head: bytes, expires: float) -> int:
        """Keep a new session; return its revision.

        Raises:
            SessionExistsError: the name is taken.
            QuotaError: there is no room and nothing may be evicted.
        """

    async def load(self, name: str) -> Stored:
        """Return a session."""

    async def commit(self, name: str, revision: int, head: bytes, expires: float, segment: bytes | None) -> int:
        """Replace the head and add a segment, if the revision still holds; return the new one.

        Raises:
            EtagMismatchError: it does not.
        """

    async def delete(self, name: str, revision: int | None) -> None:
        """Forget a session, if the revision still holds; None: whatever it is."""

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return up to `limit` sessions in name order, from the first name after `after`; expired ones too."""

    async def segments(self, name: str) -> list[bytes]:
        """Return a session's segments, the oldest first."""
