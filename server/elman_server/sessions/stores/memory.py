"""Sessions in this process's memory, gone when it ends."""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from sortedcontainers import SortedList

from elman_server.domain.errors import (
    QuotaError,
    RevisionMismatchError,
    SessionEvictedError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
)
from elman_server.process.clock import SYSTEM
from elman_server.process.observe.counters import COUNTERS
from elman_server.sessions.stores.base import Record, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elman_server.process.clock import Clock

MAX_TOMBSTONES: Final = 100_000  # names whose end is kept
BUSY_SECONDS: Final = 1.0  # until a session that is over is looked at again, if a turn runs on it
SPARE_ALARMS: Final = 64
PURGE_STEPS: Final = 16  # expired sessions deleted in one call, so that none takes long
ENTRY_BYTES: Final = 512  # what Python's own structures take, beside the bytes that are stored,
SEGMENT_BYTES: Final = 64  # and what they take for each segment

_End = type[SessionNotFoundError] | type[SessionExpiredError] | type[SessionEvictedError]


@dataclass(slots=True)
class _Entry:
    head: Record
    revision: int
    expires: float
    alarm: float = 0.0  # when the store looks whether it expired: not later than `expires`, unless a turn ran on it
    segments: list[Record] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return ENTRY_BYTES + _size(self.head) + sum(SEGMENT_BYTES + _size(segment) for segment in self.segments)


class MemoryStore:
    """A store in a dictionary, the least recently used session first.

    Args:
        max_sessions, max_bytes: past them the least recently used sessions are evicted. A commit is never refused:
            what was delivered is kept, and the next new session finds no room instead.
        clock: by which sessions expire.

    Attributes:
        in_use: whether a turn runs on a session; such a session is not evicted and does not expire.
    """

    keeps_objects = True
    is_shared = False

    def __init__(
        self,
        max_sessions: int,
        max_bytes: int,
        clock: Clock = SYSTEM,
    ) -> None:
        self._max_sessions, self._max_bytes = max_sessions, max_bytes
        self.in_use: Callable[[str], bool] = lambda _: False
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._num_bytes = 0
        self._alarms: list[tuple[float, str]] = []  # a heap; may hold some that no entry uses any more
        # One count for all sessions: a revision does not come back, not even under the same name.
        self._last_revision = time.time_ns()
        self._ends: OrderedDict[str, _End] = OrderedDict()
        self._names = SortedList()  # of the entries: a page of a million sessions must not sort them all

    async def create(self, name: str, head: Record, expires: float, segments: Sequence[Record] = ()) -> int:
        """Keep a new session; see Store."""
        self._purge()
        if name in self._entries and not self._expire(name):
            raise SessionExistsError(f"sessions/{name}")
        entry = _Entry(head, self._next_revision(), expires, segments=list(segments))
        num_bytes = entry.num_bytes
        if num_bytes > self._max_bytes:
            raise QuotaError("bytes of sessions", self._max_bytes, 1.0)
        if not self._evict(self._max_sessions - 1, self._max_bytes - num_bytes):
            raise QuotaError("sessions", len(self._entries), 1.0)
        self._ends.pop(name, None)
        self._entries[name] = entry
        self._names.add(name)
        self._num_bytes += num_bytes
        self._set_alarm(name, entry, expires)
        return entry.revision

    async def load(self, name: str) -> Stored:
        """Return a session; see Store."""
        entry = self._entry(name)
        return Stored(entry.head, entry.revision, entry.expires)

    async def commit(
        self,
        name: str,
        revision: int,
        head: Record,
        expires: float,
        segments: Sequence[Record] = (),
        *,
        keep: int | None = None,
        place: int = 0,  # noqa: ARG002  for stores that bind segments to it
    ) -> int:
        """Replace the head and add segments; see Store."""
        entry = self._entry(name)
        self._check(name, entry, revision)
        dropped = entry.segments[len(entry.segments) if keep is None else keep :]
        self._num_bytes += _size(head) - _size(entry.head)
        self._num_bytes += sum(SEGMENT_BYTES + _size(segment) for segment in segments)
        self._num_bytes -= sum(SEGMENT_BYTES + _size(segment) for segment in dropped)
        entry.head, entry.expires, entry.revision = head, expires, self._next_revision()
        del entry.segments[len(entry.segments) - len(dropped) :]
        entry.segments += segments
        if expires < entry.alarm:
            self._set_alarm(name, entry, expires)
        self._evict(self._max_sessions, self._max_bytes, spared=name)
        self._purge()
        return entry.revision

    async def delete(self, name: str, revision: int | None) -> None:
        """Delete a session; see Store."""
        entry = self._entry(name)
        if revision is not None:
            self._check(name, entry, revision)
        self._forget(name, SessionNotFoundError)

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return sessions in name order; see Store."""
        found = []
        for name in islice(self._names.irange(after, inclusive=(False, True)), limit):
            entry = self._entries[name]
            found.append((name, Stored(entry.head, entry.revision, entry.expires)))
        return found

    async def segments(self, name: str, start: int = 0, end: int | None = None) -> list[Record]:
        """Return a session's segments; see Store."""
        return self._entry(name).segments[start:end]

    async def num_sessions(self) -> int:
        """Return how many sessions there are; see Store."""
        return len(self._entries)

    async def close(self) -> None:
        """Do nothing: what is in memory goes with the process."""

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
            raise RevisionMismatchError(f"sessions/{name}")

    def _expire(self, name: str) -> bool:
        """Delete a session if its time is over."""
        if self._entries[name].expires > self._clock.expiry() or self.in_use(name):
            return False
        self._forget(name, SessionExpiredError)
        return True

    def _set_alarm(self, name: str, entry: _Entry, moment: float) -> None:
        entry.alarm = moment
        heapq.heappush(self._alarms, (moment, name))
        if len(self._alarms) > 2 * len(self._entries) + SPARE_ALARMS:
            self._alarms = [(entry.alarm, name) for name, entry in self._entries.items()]
            heapq.heapify(self._alarms)

    def _purge(self) -> None:
        """Delete a few sessions whose time is over."""
        now = self._clock.expiry()
        for _ in range(PURGE_STEPS):
            if not self._alarms or self._alarms[0][0] > now:
                return
            moment, name = heapq.heappop(self._alarms)
            entry = self._entries.get(name)
            if entry is not None and entry.alarm == moment and not self._expire(name):
                self._set_alarm(name, entry, max(entry.expires, now + BUSY_SECONDS))

    def _evict(self, max_sessions: int, max_bytes: int, spared: str | None = None) -> bool:
        """Delete the least recently used sessions until the limits hold; return whether that was possible."""
        while len(self._entries) > max_sessions or self._num_bytes > max_bytes:
            name = next((name for name in self._entries if name != spared and not self.in_use(name)), None)
            if name is None:
                return False
            self._forget(name, SessionEvictedError)
        return True

    def _next_revision(self) -> int:
        self._last_revision += 1
        return self._last_revision

    def _forget(self, name: str, end: _End) -> None:
        self._num_bytes -= self._entries.pop(name).num_bytes
        self._names.remove(name)
        if end is not SessionNotFoundError:
            COUNTERS.sessions_ended["expired" if end is SessionExpiredError else "evicted"] += 1
            self._ends[name] = end
            if len(self._ends) > MAX_TOMBSTONES:
                self._ends.popitem(last=False)


def _size(record: Record) -> int:
    return len(record) if isinstance(record, bytes) else int(record.num_bytes)
