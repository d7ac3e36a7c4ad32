"""The repository: sessions' records in the store, read and changed; by one turn at a time, whichever server runs it."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from elman_server.domain.errors import (
    CorruptRecordError,
    EtagMismatchError,
    LeaseLostError,
    RevisionMismatchError,
    SessionBusyError,
)
from elman_server.domain.owner import is_of
from elman_server.process.clock import SYSTEM
from elman_server.sessions import records
from elman_server.sessions.leases import LEFT_SECONDS, Leases, wait_for
from elman_server.sessions.lifetimes import renewed
from elman_server.sessions.transitions import LEASE_SECONDS, Change, abandoned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elman_server.process.clock import Clock
    from elman_server.sessions.leases import Lease
    from elman_server.sessions.stores import Store
    from elman_server.sessions.stores.base import Record, Stored

    Prepared = records.Segment | bytes

COMMIT_TRIES: Final = 8
TOGETHER: Final = 16  # segments that are decoded or encoded at once: other tasks run between
MISSING: Final = "a part of the session's stored text is missing"
CLOCK_SECONDS: Final = 60.0  # that the clocks of servers may differ
LATEST_BYTES: Final = 32 << 20  # of heads that are kept for the next turns on their sessions
FIRST_TAIL: Final = 8  # segments that are read at first where the end of a transcript is wanted


class Loaded(NamedTuple):
    """A session's head, and the revision of the store at which it is that."""

    head: records.Head
    revision: int


class Latest:
    """The heads of idle sessions as this server has committed them, for the next turns: the store need not be asked.

    Another server may have changed a session since. The revision of the first commit proves the head; until then
    nothing may be answered from it, and nothing refused.
    """

    def __init__(self, most_bytes: int = LATEST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[str, Loaded] = OrderedDict()  # the oldest first

    def keep(self, session_id: str, loaded: Loaded) -> None:
        """Keep a head."""
        self.take(session_id)
        self._kept[session_id] = loaded
        self._num_bytes += loaded.head.num_bytes
        while self._num_bytes > self._most_bytes:
            self.take(next(iter(self._kept)))

    def take(self, session_id: str) -> Loaded | None:
        """Remove and return a session's head."""
        loaded = self._kept.pop(session_id, None)
        if loaded is not None:
            self._num_bytes -= loaded.head.num_bytes
        return loaded


class SessionRepository:
    """The records of all sessions of a store.

    Attributes:
        leases: of the turns that run in this server.
        writer: names this server in the leases that others see.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock = SYSTEM,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._latest = Latest()
        self.leases = Leases()
        self.writer = secrets.token_hex(8)
        store.in_use = self.leases.is_running

    async def lease(self, session_id: str | None, request_id: bytes = b"") -> Lease:
        """Become the one writer of a session in this server, or of none.

        A turn of the same request is ended, and so is one whose place another server has taken and that does not know
        it yet: this server may have been paused. The commit of a turn that its caller left is waited for.

        Raises:
            SessionBusyError: another turn runs on it here.
        """
        while session_id is not None and (running := self.leases.running(session_id)) is not None:
            is_same = bool(request_id) and running.request_id == request_id
            if not is_same and not await self._is_lost(session_id, running.token):
                if running.is_left:
                    await wait_for([running], LEFT_SECONDS)
                if running.done.is_set():  # meanwhile
                    continue
                raise SessionBusyError(f"sessions/{session_id}")
            await running.finish(LeaseLostError(f"sessions/{session_id}"))
        return self.leases.take(session_id, request_id)

    async def _is_lost(self, session_id: str, token: bytes) -> bool:
        """Whether a turn had its place in the head, and did not finish there."""
        if not token or not self.is_shared:
            return False
        head, _ = await self.load(session_id)
        return token != head.last_token and (head.open is None or token != head.open.token)

    @property
    def is_shared(self) -> bool:
        """Whether other servers may change the sessions."""
        return self._store.is_shared

    async def load(self, session_id: str, etag: str = "") -> Loaded:
        """Return a session's head; raises EtagMismatchError if `etag` is given and stale."""
        stored = await self._store.load(session_id)
        head = self.head(session_id, stored)
        if etag and etag != etag_of(head):
            raise EtagMismatchError(f"sessions/{session_id}", etag_of(head))
        self.leases.found(session_id)
        return Loaded(head, stored.revision)

    def latest(self, session_id: str) -> Loaded | None:
        """Return a session's head as this server has committed it, once, if it is known; see `Latest`."""
        loaded = self._latest.take(session_id)
        if loaded is None or loaded.head.expires <= self._clock.expiry():
            return None
        self.leases.found(session_id)
        return loaded

    async def read(self, session_id: str, etag: str = "") -> tuple[records.Head, Sequence[records.Segment]]:
        """Return a session's head and the segments of its committed turns, which belong together."""
        for _ in range(COMMIT_TRIES):
            head, _ = await self.load(session_id, etag)
            segments = await self.segments(session_id, 0, head.num_segments)
            if (await self.load(session_id))[0].etag == head.etag:
                if segments and segments[-1].end != head.position:
                    raise CorruptRecordError(MISSING)
                return head, segments
        raise SessionBusyError(f"sessions/{session_id}")

    async def segments(self, session_id: str, start: int, end: int) -> Sequence[records.Segment]:
        """Return some of a session's segments, the oldest first; fewer if a rewind came between.

        Raises:
            CorruptRecordError: one is damaged, missing, or belongs elsewhere.
        """
        stored = await self._store.segments(session_id, start, end)
        if len(stored) < end - start:
            head, _ = await self.load(session_id)
            if end <= (head.open or head).num_segments:
                raise CorruptRecordError(MISSING)
        if self._store.keeps_objects:
            return stored
        segments: list[records.Segment] = []
        for place, data in enumerate(stored, start):
            segment = records.decode(data, records.Segment, session_id, place)
            if segments and segment.start != segments[-1].end:
                raise CorruptRecordError(MISSING)
            segments.append(segment)
            if len(segments) % TOGETHER == 0:
                await asyncio.sleep(0)  # others wait
        return segments

    def head(self, key: str, stored: Stored) -> records.Head:
        """Return a head that the store has under a key; raises CorruptRecordError."""
        is_plain = self._store.keeps_objects
        head: records.Head = stored.head if is_plain else records.decode(stored.head, records.Head, key)
        if not is_of(head.owner, key):
            raise CorruptRecordError("a stored session belongs to another owner")
        return head

    def encoded(self, session_id: str, record: records.Head | records.Segment, place: int = records.HEAD) -> Record:
        """Return a record of a session as the store has it."""
        return record if self._store.keeps_objects else records.encode(record, session_id, place)

    async def prepared(self, segments: Sequence[records.Segment]) -> Sequence[Prepared]:
        """Return segments for new sessions, encoded as far as they are the same in each."""
        if self._store.keeps_objects:
            return segments
        bodies = []
        for segment in segments:
            bodies.append(records.body_of(segment))
            if len(bodies) % TOGETHER == 0:
                await asyncio.sleep(0)  # others wait
        return bodies

    async def bound(self, session_id: str, prepared: Sequence[Prepared]) -> Sequence[Record]:
        """Return the segments of a new session as the store has them."""
        parts: list[Record] = []
        for place, part in enumerate(prepared):
            parts.append(records.bound(part, session_id, place) if isinstance(part, bytes) else part)
            if len(parts) % (8 * TOGETHER) == 0:
                await asyncio.sleep(0)  # others wait
        return parts

    async def tail(self, session_id: str, num_segments: int, num_chars: int) -> Sequence[int]:
        """Return the last ids of the first segments of a session, `num_chars` of them or all that there are."""
        size = FIRST_TAIL
        while True:
            start = max(0, num_segments - size)
            found = await self.segments(session_id, start, num_segments)
            ids = [character for segment in found for character in segment.ids]
            if len(ids) >= num_chars or not start:
                return ids[-num_chars:]
            size *= 8

    async def before(self, session_id: str, position: int, num_chars: int) -> Sequence[int]:
        """Return the last ids before a position that is committed, `num_chars` of them or all that there are."""
        head, _ = await self.load(session_id)
        num_after = head.position - position
        ids = await self.tail(session_id, head.num_segments, num_chars + num_after)
        return ids[: len(ids) - num_after]

    async def change(
        self, session_id: str, change: Callable[[records.Head], Change | None], *, etag: str = ""
    ) -> records.Head:
        """Apply a change to a session, again if another one came between; return the new head.

        Args:
            session_id: which.
            change: given the head, says what to commit; None: nothing, it is committed already.
            etag: must still hold, unless it is empty.
        """
        return (await self.change_loaded(session_id, None, change, etag=etag)).head

    async def change_loaded(
        self,
        session_id: str,
        loaded: Loaded | None,
        change: Callable[[records.Head], Change | None],
        *,
        etag: str = "",
    ) -> Loaded:
        """Apply a change to a session as it was loaded: if it still is as it was, the store is asked once."""
        for _ in range(COMMIT_TRIES):
            if loaded is None:
                loaded = await self.load(session_id)
            if etag and etag != etag_of(loaded.head):
                raise EtagMismatchError(f"sessions/{session_id}", etag_of(loaded.head))
            changed = change(loaded.head)
            if changed is None:
                return loaded
            head, segments, keep = changed
            # A running turn keeps its session, which the store may not know of.
            expires = head.expires if head.open is None else max(head.expires, head.open.lease_expires)
            place = (loaded.head.open or loaded.head).num_segments if keep is None else keep
            parts = [self.encoded(session_id, segment, at) for at, segment in enumerate(segments, place)]
            encoded = self.encoded(session_id, head)
            try:
                revision = await self._store.commit(
                    session_id, loaded.revision, encoded, expires, parts, keep=keep, place=place
                )
            except RevisionMismatchError:
                loaded = None
                continue
            loaded = Loaded(head, revision)
            if self.is_shared and head.open is None:
                self._latest.keep(session_id, loaded)
            return loaded
        raise SessionBusyError(f"sessions/{session_id}")

    async def idle(self, session_id: str, etag: str = "") -> Loaded:
        """Return a session once its turn, if any, is over; ends one whose server is down.

        Raises:
            EtagMismatchError: `etag` is given and stale.
            SessionBusyError: another server runs a turn on it.
        """
        loaded = await self.load(session_id, etag)
        if loaded.head.open is None:
            return loaded
        if self.is_leased(loaded.head):
            raise SessionBusyError(f"sessions/{session_id}")
        token = loaded.head.open.token

        def end(head: records.Head) -> Change | None:
            return abandoned(head) if head.open is not None and head.open.token == token else None

        return await self.change_loaded(session_id, loaded, end)

    async def ask_to_end(self, session_id: str, token: bytes) -> None:
        """Ask the server that runs a turn to end it; that server sees this at its next commit."""

        def ask(head: records.Head) -> Change | None:
            if head.open is None or head.open.token != token:
                return None
            opened = msgspec.structs.replace(head.open, is_cancelled=True)
            return Change(msgspec.structs.replace(head, open=opened))

        await self.change(session_id, ask)

    def is_leased(self, head: records.Head, token: bytes = b"") -> bool:
        """Whether another server runs a turn on a session, or just the turn of a token.

        A turn of this server would have its lease here. A lease that ends later than any can is not believed: the clock
        by which it was written was wrong, and the session would be busy until then.
        """
        opened = head.open
        if opened is None or opened.writer == self.writer or (token and opened.token != token):
            return False
        # After a jump of the clock a lease counts by the time before, until its server renews it by the time after.
        now = (self._clock(), self._clock.steady())
        return any(0 < opened.lease_expires - moment <= self._lease_seconds + CLOCK_SECONDS for moment in now)

    def renewed(self, head: records.Head) -> records.Head:
        """Return a head whose idle time starts again."""
        return renewed(head, self._clock())

    def now(self) -> float:
        """Return the time, unix seconds."""
        return self._clock()


def etag_of(head: records.Head) -> str:
    """Return a session's etag: it changes with what callers see, not with what a running turn makes durable."""
    return f"{head.etag:x}"
