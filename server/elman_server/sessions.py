"""Sessions: made, looked at, changed and forgotten; one writer at a time."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server import records
from elman_server.commits import Change, abandoned, new_etag
from elman_server.errors import (
    EtagMismatchError,
    InvalidFieldError,
    ModelMismatchError,
    PositionOutOfRangeError,
    SessionBusyError,
    SessionNotFoundError,
)
from elman_server.lease import Leases
from elman_server.lifetimes import renewed
from elman_server.pages import PageToken
from elman_server.session import (
    Expiration,
    Filter,
    Page,
    SessionInfo,
    SessionStatus,
    Transcript,
    check_id,
    check_labels,
    turns_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elman_server.lifetimes import Lifetimes
    from elman_server.models import ModelInfo, Models
    from elman_server.stores import Store, Stored

SEED_BITS: Final = 32  # of a seed that the server draws: short enough to type
DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
COMMIT_TRIES: Final = 8
FIRST_TAIL: Final = 8  # segments that are read at first where the end of a transcript is wanted


class Sessions:
    """All sessions of a server.

    Attributes:
        leases: of the turns that run in this server.
        writer: names this server in the leases that others see.
    """

    def __init__(
        self, store: Store, models: Models, lifetimes: Lifetimes, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._models = models
        self._lifetimes = lifetimes
        self._clock = clock
        self.leases = Leases()
        self.writer = secrets.token_hex(8)
        store.in_use = self.leases.is_running

    async def create(  # noqa: D417  the others are as in elman.v1.CreateSessionRequest
        self,
        *,
        model: str,
        version: str | None,
        session_id: str,
        seed: int | None,
        expiration: Expiration,
        labels: Mapping[str, str],
    ) -> SessionInfo:
        """Make a session at position 0.

        Args:
            session_id: "" lets the server choose a UUID.

        Raises:
            InvalidFieldError, ModelNotFoundError, SessionExistsError, QuotaError.
        """
        check_labels("labels", labels)
        info, now = self._models.get(model, version), self._clock()
        head = records.Head(
            model=info.name,
            model_version=info.version,
            model_digest=info.digest,
            created=now,
            updated=now,
            ttl=None,
            expires=0,
            last=0,
            seed=secrets.randbits(SEED_BITS) if seed is None else seed,
            labels=dict(labels),
            position=0,
            turn_count=0,
            memory=info.initial,
        )
        return await self.add(session_id, head, expiration)

    async def add(
        self, session_id: str, head: records.Head, expiration: Expiration, segments: Sequence[records.Segment] = ()
    ) -> SessionInfo:
        """Keep a session that somebody made, with times of its own; raises InvalidFieldError, SessionExistsError."""
        if session_id:
            check_id("session_id", session_id)
        now, name = self._clock(), session_id or str(uuid.uuid4())
        last = now + self._lifetimes.absolute
        head = msgspec.structs.replace(head, created=now, updated=now, last=last, etag=new_etag())
        head = self._lifetimes.expiring("", head, expiration, now)
        packed = [records.encode(segment) for segment in segments]
        await self._store.create(name, records.encode(head), head.expires, packed)
        return self.info(name, head)

    async def get(self, session_id: str) -> SessionInfo:
        """Return a session."""
        return self.info(session_id, (await self.load(session_id))[0])

    async def list(self, *, page_size: int, page_token: str, filter: Filter) -> Page:  # noqa: A002  the API's word
        """Return a page of sessions in name order; raises InvalidFieldError."""
        if not 0 <= page_size <= MAX_PAGE:
            raise InvalidFieldError("page_size", f"is {page_size}; allowed is from 1 to {MAX_PAGE}, or 0")
        limit = page_size or DEFAULT_PAGE
        scope = f"{filter.model}{sorted(filter.labels.items())}"
        after = PageToken.decode(page_token, scope)
        # One store page an answer, however few match: an answer's cost is bounded and an empty page is allowed.
        rows = await self._store.page(after, limit)
        found = []
        for name, stored in rows:
            head = records.decode(stored.head, records.Head)
            if filter.matches(head):
                found.append(self.info(name, head))
        return Page(tuple(found), PageToken.encode(rows[-1][0], scope) if len(rows) == limit else "")

    async def update(
        self, session_id: str, *, etag: str, labels: Mapping[str, str] | None, expiration: Expiration | None
    ) -> SessionInfo:
        """Change labels or expiration; None leaves them. Raises InvalidFieldError, EtagMismatchError."""
        if labels is not None:
            check_labels("session.labels", labels)

        def change(head: records.Head) -> Change:
            now = self._clock()
            head = msgspec.structs.replace(head, updated=now, etag=new_etag())
            if labels is not None:
                head = msgspec.structs.replace(head, labels=dict(labels))
            if expiration is not None:
                head = self._lifetimes.expiring("session.", head, expiration, now)
            return Change(head)

        return self.info(session_id, await self.change(session_id, change, etag=etag))

    async def delete(self, session_id: str, *, etag: str) -> None:
        """Forget a session; a turn that runs on it ends with SessionNotFoundError."""
        for _ in range(COMMIT_TRIES if etag else 0):
            _, stored = await self.load(session_id, etag)
            try:
                await self._store.delete(session_id, stored.revision)
                break
            except EtagMismatchError:  # a turn has made something durable
                continue
        else:
            await self._store.delete(session_id, None)
        if lease := self.leases.running(session_id):
            lease.interrupt(SessionNotFoundError(f"sessions/{session_id}"))

    async def transcript(self, session_id: str, start: int, end: int | None) -> Transcript:
        """Return a part of what a session has read and written; raises PositionOutOfRangeError."""
        head, segments = await self.read(session_id)
        end = head.position if end is None else end
        check_position("end", end, 0, head.position)
        check_position("start", start, 0, end)
        ids: list[int] = []
        for segment in segments:
            if segment.end > start and segment.start < end:
                ids += segment.ids[max(0, start - segment.start) : end - segment.start]
        turns = [turn for turn in turns_of(segments) if turn.end > start and turn.start < end]
        return Transcript(self.model_of(head).vocabulary.decode(ids), start, end, tuple(turns))

    # For turns

    async def load(self, session_id: str, etag: str = "") -> tuple[records.Head, Stored]:
        """Return a session's head; raises EtagMismatchError if `etag` is given and stale."""
        stored = await self._store.load(session_id)
        head = records.decode(stored.head, records.Head)
        if etag and etag != etag_of(head):
            raise EtagMismatchError(f"sessions/{session_id}", etag_of(head))
        self.leases.found(session_id)
        return head, stored

    async def read(self, session_id: str, etag: str = "") -> tuple[records.Head, Sequence[records.Segment]]:
        """Return a session's head and the segments of its committed turns, which belong together."""
        for _ in range(COMMIT_TRIES):
            head, _ = await self.load(session_id, etag)
            segments = await self.segments(session_id, 0, head.num_segments)
            if (await self.load(session_id))[0].etag == head.etag:
                return head, segments
        raise SessionBusyError(f"sessions/{session_id}")

    async def segments(self, session_id: str, start: int, end: int) -> Sequence[records.Segment]:
        """Return some of a session's segments, the oldest first."""
        stored = await self._store.segments(session_id, start, end)
        return [records.decode(segment, records.Segment) for segment in stored]

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

    def model_of(self, head: records.Head) -> ModelInfo:
        """Return the model that a session is pinned to; raises ModelMismatchError."""
        model = self._models.get(head.model)
        if model.digest != head.model_digest:
            raise ModelMismatchError(
                f"the session is pinned to {head.model_digest[:12]} of models/{head.model}, this server has "
                f"{model.digest[:12]}; create a new session"
            )
        return model

    async def change(
        self, session_id: str, change: Callable[[records.Head], Change | None], *, etag: str = ""
    ) -> records.Head:
        """Apply a change to a session, again if somebody else's came between; return the new head.

        Args:
            session_id: which.
            change: given the head, says what to commit; None: nothing, it is committed already.
            etag: must still hold, unless it is empty.
        """
        for _ in range(COMMIT_TRIES):
            head, stored = await self.load(session_id, etag)
            changed = change(head)
            if changed is None:
                return head
            head, segments, keep = changed
            # A running turn keeps its session, which the store may not know of.
            expires = head.expires if head.open is None else max(head.expires, head.open.lease_expires)
            packed = [records.encode(segment) for segment in segments]
            try:
                await self._store.commit(session_id, stored.revision, records.encode(head), expires, packed, keep=keep)
            except EtagMismatchError:
                continue
            return head
        raise SessionBusyError(f"sessions/{session_id}")

    async def at_rest(self, session_id: str) -> records.Head:
        """Return a session's head once its turn, if any, is over; ends one whose server is gone.

        Raises:
            SessionBusyError: another server runs a turn on it.
        """
        head, _ = await self.load(session_id)
        if head.open is None:
            return head
        if self.is_leased(head):
            raise SessionBusyError(f"sessions/{session_id}")
        token = head.open.token

        def end(head: records.Head) -> Change | None:
            return abandoned(head) if head.open is not None and head.open.token == token else None

        return await self.change(session_id, end)

    async def ask_to_end(self, session_id: str, token: bytes) -> None:
        """Tell whoever runs a turn that it shall end; it sees that with its next commit."""

        def ask(head: records.Head) -> Change | None:
            if head.open is None or head.open.token != token:
                return None
            opened = msgspec.structs.replace(head.open, is_cancelled=True)
            return Change(msgspec.structs.replace(head, open=opened))

        await self.change(session_id, ask)

    def is_leased(self, head: records.Head, token: bytes = b"") -> bool:
        """Whether another server runs a turn on a session, or just the turn of a token.

        A turn of this server would have its lease here.
        """
        opened = head.open
        if opened is None or opened.writer == self.writer or (token and opened.token != token):
            return False
        return opened.lease_expires > self._clock()

    def renewed(self, head: records.Head) -> records.Head:
        """Return a head with its idle time started anew."""
        return renewed(head, self._clock())

    def now(self) -> float:
        """Return the time, unix seconds."""
        return self._clock()

    def info(self, name: str, head: records.Head) -> SessionInfo:
        """Return what callers see of a session."""
        status = SessionStatus.EXPIRED if head.expires <= self._clock() else SessionStatus.ACTIVE
        if head.open is not None and (self.leases.is_running(name) or self.is_leased(head)):
            status = SessionStatus.GENERATING
        return SessionInfo(
            name=name,
            model=f"models/{head.model}/versions/{head.model_version}",
            model_digest=head.model_digest,
            status=status,
            create_time=head.created,
            update_time=head.updated,
            expire_time=head.expires,
            etag=etag_of(head),
            position=head.position,
            turn_count=head.turn_count,
            state_digest=head.memory.digest(),
            seed=head.seed,
            labels=head.labels,
            forked_from=head.forked_from,
        )


def etag_of(head: records.Head) -> str:
    """Return a session's etag: it changes with what callers see, not with what a running turn makes durable."""
    return f"{head.etag:x}"


def check_position(name: str, value: int, start: int, end: int) -> None:
    """Refuse a position outside of a range, whose end is allowed."""
    if not start <= value <= end:
        raise PositionOutOfRangeError(name, value, start, end)
