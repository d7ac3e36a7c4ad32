"""Accounts: what each principal has and uses, against its quotas."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import OwnQuotaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from elman_server.grpc.access.principals import Quotas

STREAMS_RETRY_SECONDS: Final = 1.0
SESSIONS_RETRY_SECONDS: Final = 5.0  # they expire, or are deleted
SHARE: Final = 9
_NEVER_SECONDS: Final = 3600.0  # of a quota of 0


class Bucket:
    """An amount that may be used each minute: a minute's worth at once, then as it comes back.

    Use that is only known afterwards may take it below zero; then it has to come back first.
    """

    __slots__ = ("_at", "_clock", "_level", "_per_minute")

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._level = float(per_minute)
        self._clock = clock
        self._at = clock()

    def wait(self) -> float:
        """Return the seconds until something may be used; 0: now."""
        self.use(0)
        if self._level >= 1:
            return 0.0
        return (1 - self._level) * 60 / self._per_minute if self._per_minute else _NEVER_SECONDS

    @property
    def used(self) -> float:
        """How much of the minute's amount is used now; it changes nothing, as another thread may ask."""
        return self._per_minute - min(self._per_minute, self._level + self._back(self._clock()))

    def use(self, amount: float) -> None:
        """Note what was used."""
        now = self._clock()
        self._level = min(self._per_minute, self._level + self._back(now)) - amount
        self._at = now

    def _back(self, now: float) -> float:
        """Return what has come back since the last use."""
        return (now - self._at) * self._per_minute / 60


class Places:
    """The streams of all principals.

    Nobody may have more than SHARE times what is free. So one principal alone gets nine tenths, and however many
    streams it asks for, others find room.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._num_taken = 0

    def take(self, num_own: int) -> None:
        """Take a place for a principal who has some; raises OwnQuotaError."""
        allowed = SHARE * (self._most - self._num_taken)
        if num_own >= allowed:
            raise OwnQuotaError("streams", num_own, STREAMS_RETRY_SECONDS)
        self._num_taken += 1

    def leave(self) -> None:
        """Give a place back."""
        self._num_taken -= 1


class Account:
    """What one principal has and uses.

    Args:
        places: shared with all other accounts.

    Attributes:
        quotas: its limits.
        num_sessions, num_bytes: as counted at `counted_at`, and what was added since.
    """

    def __init__(self, quotas: Quotas, places: Places, clock: Callable[[], float] = time.monotonic) -> None:
        self.quotas = quotas
        self._places = places
        self.num_sessions = 0
        self.num_bytes = 0
        self.counted_at = -float("inf")
        self._clock = clock
        self._num_streams = 0
        self._characters = _bucket(quotas.characters_per_minute, clock)
        self._requests = _bucket(quotas.requests_per_minute, clock)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it runs."""
        return not self._num_streams

    def usage(self) -> dict[str, tuple[float, float]]:
        """Return what is used and what is allowed, of the quotas that have a limit."""
        found = {
            "sessions": (self.num_sessions, self.quotas.sessions),
            "stored_bytes": (self.num_bytes, self.quotas.stored_bytes),
            "streams": (self._num_streams, self.quotas.streams),
            "characters_per_minute": (_used(self._characters), self.quotas.characters_per_minute),
            "requests_per_minute": (_used(self._requests), self.quotas.requests_per_minute),
        }
        return {name: (used, limit) for name, (used, limit) in found.items() if limit is not None}

    def change(self, quotas: Quotas) -> None:
        """Have other limits from now on."""
        if quotas.characters_per_minute != self.quotas.characters_per_minute:
            self._characters = _bucket(quotas.characters_per_minute, self._clock)
        if quotas.requests_per_minute != self.quotas.requests_per_minute:
            self._requests = _bucket(quotas.requests_per_minute, self._clock)
        self.quotas = quotas

    def request(self) -> None:
        """Use one request; raises OwnQuotaError."""
        if self._requests is not None:
            _check(self._requests, "requests a minute", self.quotas.requests_per_minute)
            self._requests.use(1)

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Have one more stream while entered; raises OwnQuotaError."""
        self.check_characters()
        most = self.quotas.streams
        if most is not None and self._num_streams >= most:
            raise OwnQuotaError("streams", most, STREAMS_RETRY_SECONDS)
        self._places.take(self._num_streams)
        self._num_streams += 1
        try:
            yield
        finally:
            self._num_streams -= 1
            self._places.leave()

    def check_characters(self) -> None:
        """Refuse what runs a model if too much was read and sampled; raises OwnQuotaError."""
        if self._characters is not None:
            _check(self._characters, "characters a minute", self.quotas.characters_per_minute)

    def use_characters(self, count: int) -> None:
        """Note characters that were read or sampled."""
        self.num_bytes += count
        if self._characters is not None:
            self._characters.use(count)

    def is_full(self, num_sessions: int) -> bool:
        """Whether there is no room for new sessions, or for characters in old ones."""
        try:
            self.check_room(num_sessions)
        except OwnQuotaError:
            return True
        return False

    def check_room(self, num_sessions: int) -> None:
        """Refuse new sessions, or characters in old ones, past the limits; raises OwnQuotaError."""
        most, most_bytes = self.quotas.sessions, self.quotas.stored_bytes
        if most is not None and num_sessions and self.num_sessions + num_sessions > most:
            raise OwnQuotaError("sessions", most, SESSIONS_RETRY_SECONDS)
        if most_bytes is not None and self.num_bytes >= most_bytes:
            raise OwnQuotaError("stored bytes", most_bytes, SESSIONS_RETRY_SECONDS)


def _bucket(per_minute: int | None, clock: Callable[[], float]) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, clock)


def _used(bucket: Bucket | None) -> float:
    return 0.0 if bucket is None else bucket.used


def _check(bucket: Bucket, subject: str, limit: int | None) -> None:
    if seconds := bucket.wait():
        raise OwnQuotaError(subject, limit or 0, round(seconds, 3))
