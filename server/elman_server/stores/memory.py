"""Sessions in this process's memory, gone when it ends."""

from __future__ import annotations

import bisect
import heapq
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from elman_server.errors import (
    EtagMismatchError,
    QuotaError,
    SessionEvictedError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
)
from elman_server.stores.base import Stored

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TOMBSTONES: Final = 100_000  # names whose end is remembered
PURGE_STEPS: Final = 16  # expired sessions forgotten in one call, so that none takes long
ENTRY_BYTES: Final = 512  # what Python's own structures take, beside the bytes that are stored

_End = type[SessionNotFoundError] | type[SessionExpiredError] | type[SessionEvictedError]


@dataclass(slots=True)
class _Entry:
    head: bytes
    revision: int
    expires: float
    segments: list[bytes] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return len(self.head) + sum(map(len, self.segments)) + ENTRY_BYTES


class MemoryStore:
    """A store in a dictionary, the least recently used session first.

    Args:
        max_sessions, max_bytes: past them the least recently used sessions are evicted.
        clock: unix seconds.

    Attributes:
        in_use: says of a session whether a turn runs on it; such are neither evicted nor do they expire.
    """

    def __init__(
        self,
        max_sessions: int,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_sessions, self._max_bytes = max_sessions, max_bytes
        self.in_use: Callable[[str], bool] = lambda _: False
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._num_bytes = 0
        self._expiries: list[tuple[float, str]] = []  # a heap; may name entries that live longer by now
        self._ends: OrderedDict[str, _End] = OrderedDict()
        self._sorted: list[str] | None = None

    async def create(self, name: str, head: bytes, expires: float) -> int:
        """Keep a new session; see Store."""
        self._purge()
        if name in self._entries and not self._expire(name):
            raise SessionExistsError(f"sessions/{name}")
        entry = _Entry(head, time.time_ns(), expires)
        self._make_room(entry.num_bytes)
        self._ends.pop(name, None)
        self._entries[name] = entry
        self._num_bytes += entry.num_bytes
        self._sorted = None
        heapq.heappush(self._expiries, (expires, name))
        return entry.revision

    async def load(self, name: str) -> Stored:
        """Return a session; see Store."""
        entry = self._entry(name)
        return Stored(entry.head, entry.revision, entry.expires)

    async def commit(self, name: str, revision: int, head: bytes, expires: float, segment: bytes | None) -> int:
        """Replace the head and add a segment; see Store."""
        entry = self._entry(name)
        self._check(name, entry, revision)
        self._num_bytes -= entry.num_bytes
        if segment is not None:
            entry.segments.append(segment)
        entry.head, entry.expires = head, expires
        entry.revision += 1
        self._num_bytes += entry.num_bytes
        heapq.heappush(self._expiries, (expires, name))
        self._purge()
        return entry.revision

    async def delete(self, name: str, revision: int | None) -> None:
        """Forget a session; see Store."""
        entry = self._entry(name)
        if revision is not None:
            self._check(name, entry, revision)
        self._forget(name, SessionNotFoundError)

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return sessions in name order; see Store."""
        if self._sorted is None:
            self._sorted = sorted(self._entries)
        first = bisect.bisect_right(self._sorted, after)
        found = []
        for name in self._sorted[first : first + limit]:
            entry = self._entries[name]
            found.append((name, Stored(entry.head, entry.revision, entry.expires)))
        return found

    async def segments(self, name: str) -> list[bytes]:
        """Return a session's segments; see Store."""
        return list(self._entry(name).segments)

    def _entry(self, name: str) -> _Entry:
        if name in self._entries:
            self._expire(name)
        entry = self._entries.get(name)
        if entry is None:
            raise (self._ends.get(name) or SessionNotFoundError)(f"sessions/{name}")
        self._entries.move_to_end(name)
        return entry

    def _check(self, name: str, entry: _Entry, revision: int) -> None:
        if entry.revision != revision:
            raise EtagMismatchError(f"sessions/{name}", f"{entry.revision:x}")

    def _expire(self, name: str) -> bool:
        """Forget a session if its time is over."""
        if self._entries[name].expires > self._clock() or self.in_use(name):
            return False
        self._forget(name, SessionExpiredError)
        return True

    def _purge(self) -> None:
        """Forget a few sessions whose time is over."""
        for _ in range(PURGE_STEPS):
            if not self._expiries or self._expiries[0][0] > self._clock():
                return
            expires, name = heapq.heappop(self._expiries)
            entry = self._entries.get(name)
            if entry is not None and entry.expires == expires and not self._expire(name):
                heapq.heappush(self._expiries, (self._clock() + 1, name))  # a turn runs on it: look again

    def _make_room(self, num_bytes: int) -> None:
        while len(self._entries) >= self._max_sessions or self._num_bytes + num_bytes > self._max_bytes:
            name = next((name for name in self._entries if not self.in_use(name)), None)
            if name is None:
                raise QuotaError("sessions", len(self._entries), 1.0)
            self._forget(name, SessionEvictedError)

    def _forget(self, name: str, end: _End) -> None:
        self._num_bytes -= self._entries.pop(name).num_bytes
        self._sorted = None
        if end is not SessionNotFoundError:
            self._ends[name] = end
            if len(self._ends) > MAX_TOMBSTONES:
                self._ends.popitem(last=False)
