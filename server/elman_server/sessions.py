"""Sessions: made, looked at, changed and forgotten; one writer at a time."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server import records
from elman_server.errors import (
    EtagMismatchError,
    InvalidFieldError,
    ModelMismatchError,
    PositionOutOfRangeError,
    SessionBusyError,
    SessionNotFoundError,
)
from elman_server.lease import Lease
from elman_server.pages import PageToken
from elman_server.session import Expiration, Filter, Page, SessionInfo, SessionStatus, Transcript, Turn
from elman_server.state import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elman_server.models import ModelInfo, Models
    from elman_server.stores import Store, Stored

SEED_BITS: Final = 32  # of a seed that the server draws: short enough to type
MAX_SEED: Final = 2**64 - 1
MAX_LABELS: Final = 16
DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
COMMIT_TRIES: Final = 8
_ID: Final = re.compile(r"[a-z0-9-]{4,63}")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_CHARS: Final = 63


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long sessions live, in seconds: idle, and at most."""

    idle: float
    absolute: float


class Sessions:
    """All sessions of a server."""

    def __init__(
        self, store: Store, models: Models, lifetimes: Lifetimes, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._models = models
        self._lifetimes = lifetimes
        self._clock = clock
        self._leases: dict[str, Lease] = {}

    async def create(  # noqa: D417  the others are as in elman.v1.CreateSessionRequest
        self,
        *,
        model: str,
        version: str | None,
        session_id: str,
        seed: int | None,
        expiration: Expiration,
        labels: Mapping[str, str],
        initial_state: str = DEFAULT,
    ) -> SessionInfo:
        """Make a session at position 0.

        Args:
            session_id: "" lets the server choose a UUID.

        Raises:
            InvalidFieldError, ModelNotFoundError, SessionExistsError, QuotaError.
        """
        if session_id and not _ID.fullmatch(session_id):
            raise InvalidFieldError("session_id", f"is {session_id[:80]!a}; it has to match ^{_ID.pattern}$")
        _check_labels("labels", labels)
        info, now = self._models.get(model, version), self._clock()
        head = records.Head(
            model=info.name,
            model_version=info.version,
            model_digest=info.digest,
            created=now,
            updated=now,
            ttl=None,
            expires=0,
            last=now + self._lifetimes.absolute,
            seed=secrets.randbits(SEED_BITS) if seed is None else seed,
            labels=dict(labels),
            position=0,
            turn_count=0,
            memory=info.start(initial_state),
            initial_state=initial_state,
        )
        head = self._expiring("", head, expiration)
        name = session_id or str(uuid.uuid4())
        revision = await self._store.create(name, records.encode(head), head.expires)
        return self._info(name, head, revision)

    async def get(self, session_id: str) -> SessionInfo:
        """Return a session."""
        head, stored = await self.load(session_id)
        return self._info(session_id, head, stored.revision)

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
                found.append(self._info(name, head, stored.revision))
        return Page(tuple(found), PageToken.encode(rows[-1][0], scope) if len(rows) == limit else "")

    async def update(
        self, session_id: str, *, etag: str, labels: Mapping[str, str] | None, expiration: Expiration | None
    ) -> SessionInfo:
        """Change labels or expiration; None leaves them. Raises InvalidFieldError, EtagMismatchError."""
        if labels is not None:
            _check_labels("session.labels", labels)

        def change(head: records.Head) -> records.Head:
            head = msgspec.structs.replace(head, updated=self._clock())
            if labels is not None:
                head = msgspec.structs.replace(head, labels=dict(labels))
            return head if expiration is None else self._expiring("session.", head, expiration)

        return await self.change(session_id, change, etag=etag)

    async def delete(self, session_id: str, *, etag: str) -> None:
        """Forget a session; a turn that runs on it ends with SessionNotFoundError."""
        revision = None if not etag else self._revision(session_id, etag, (await self.load(session_id))[1])
        await self._store.delete(session_id, revision)
        if lease := self._leases.get(session_id):
            lease.interrupt(SessionNotFoundError(f"sessions/{session_id}"))

    async def transcript(self, session_id: str, start: int, end: int | None) -> Transcript:
        """Return a part of what a session has read and written; raises PositionOutOfRangeError."""
        head, _ = await self.load(session_id)
        end = head.position if end is None else end
        if not 0 <= end <= head.position:
            raise PositionOutOfRangeError("end", end, 0, head.position)
        if not 0 <= start <= end:
            raise PositionOutOfRangeError("start", start, 0, end)
        ids: list[int] = []
        turns = []
        for segment in await self.segments(session_id):
            if segment.end > start and segment.start < end:
                ids += segment.ids[max(0, start - segment.start) : end - segment.start]
                turns.append(Turn(segment.start, segment.prompt_end, segment.end, segment.seed))
        return Transcript(self.model_of(head).vocabulary.decode(ids), start, end, tuple(turns))

    # For turns

    def lease(self, session_id: str | None) -> Lease:
        """Become the one writer of a session, or of none; raises SessionBusyError."""
        lease = Lease(session_id)
        if session_id is not None and self._leases.setdefault(session_id, lease) is not lease:
            raise SessionBusyError(f"sessions/{session_id}")
        return lease

    def release(self, lease: Lease) -> None:
        """Stop being the writer; again does nothing."""
        if lease.session_id is not None and self._leases.get(lease.session_id) is lease:
            del self._leases[lease.session_id]
        lease.done.set()

    def running(self, session_id: str) -> Lease | None:
        """Return the lease of the turn that runs on a session."""
        return self._leases.get(session_id)

    def is_running(self, session_id: str) -> bool:
        """Whether a turn runs on a session."""
        lease = self._leases.get(session_id)
        return lease is not None and lease.born is not None

    async def load(self, session_id: str, etag: str = "") -> tuple[records.Head, Stored]:
        """Return a session's head; raises EtagMismatchError if `etag` is given and stale."""
        stored = await self._store.load(session_id)
        if etag:
            self._revision(session_id, etag, stored)
        head = records.decode(stored.head, records.Head)
        lease = self._leases.get(session_id)
        if lease is not None and lease.born is None:
            lease.born = head.created
        return head, stored

    async def segments(self, session_id: str) -> Sequence[records.Segment]:
        """Return a session's turns, the oldest first."""
        return [records.decode(segment, records.Segment) for segment in await self._store.segments(session_id)]

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
        self,
        session_id: str,
        change: Callable[[records.Head], records.Head],
        *,
        etag: str = "",
        segment: records.Segment | None = None,
    ) -> SessionInfo:
        """Apply a change to a session's head, again if somebody else's came between; return the result."""
        for _ in range(COMMIT_TRIES):
            head, stored = await self.load(session_id, etag)
            lease = self._leases.get(session_id)
            if segment is not None and lease is not None and lease.born != head.created:
                raise SessionNotFoundError(f"sessions/{session_id}")  # the turn's own was deleted
            head = change(head)
            packed = None if segment is None else records.encode(segment)
            try:
                revision = await self._store.commit(
                    session_id, stored.revision, records.encode(head), head.expires, packed
                )
            except EtagMismatchError:
                continue
            return self._info(session_id, head, revision, is_at_rest=segment is not None)
        raise SessionBusyError(f"sessions/{session_id}")

    def renewed(self, head: records.Head) -> records.Head:
        """Return a head with its idle time started anew."""
        now = self._clock()
        expires = head.expires if head.ttl is None else min(now + head.ttl, head.last)
        return msgspec.structs.replace(head, updated=now, expires=expires)

    def _info(self, name: str, head: records.Head, revision: int, *, is_at_rest: bool = False) -> SessionInfo:
        status = SessionStatus.EXPIRED if head.expires <= self._clock() else SessionStatus.ACTIVE
        if self.is_running(name) and not is_at_rest:
            status = SessionStatus.GENERATING
        return SessionInfo(
            name=name,
            model=f"models/{head.model}/versions/{head.model_version}",
            model_digest=head.model_digest,
            status=status,
            create_time=head.created,
            update_time=head.updated,
            expire_time=head.expires,
            etag=f"{revision:x}",
            position=head.position,
            turn_count=head.turn_count,
            state_digest=head.memory.digest(),
            seed=head.seed,
            labels=head.labels,
            initial_state=head.initial_state,
        )

    def _expiring(self, prefix: str, head: records.Head, expiration: Expiration) -> records.Head:
        now = self._clock()
        if expiration.expire_time is not None:
            if expiration.expire_time <= now:
                raise InvalidFieldError(f"{prefix}expire_time", "lies in the past; choose a moment to come")
            return msgspec.structs.replace(head, ttl=None, expires=min(expiration.expire_time, head.last))
        ttl = self._lifetimes.idle if expiration.ttl is None else expiration.ttl
        if ttl <= 0:
            raise InvalidFieldError(f"{prefix}ttl", f"is {ttl:g} s; it has to be positive")
        return msgspec.structs.replace(head, ttl=ttl, expires=min(now + ttl, head.last))

    @staticmethod
    def _revision(session_id: str, etag: str, stored: Stored) -> int:
        if etag != f"{stored.revision:x}":
            raise EtagMismatchError(f"sessions/{session_id}", f"{stored.revision:x}")
        return stored.revision


def _check_labels(name: str, labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidFieldError(name, f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
    for key, value in labels.items():
        if not _LABEL.fullmatch(key):
            raise InvalidFieldError(name, f"has the key {key[:80]!a}; keys have to match ^{_LABEL.pattern}$")
        if len(value) > _LABEL_CHARS:
            raise InvalidFieldError(name, f"has a value of {len(value)} characters; at most {_LABEL_CHARS}")
