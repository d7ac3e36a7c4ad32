"""Sessions: made, looked at, changed and forgotten; one writer at a time."""

from __future__ import annotations

import contextlib
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server.domain.errors import (
    EtagMismatchError,
    InvalidFieldError,
    ModelMismatchError,
    PositionOutOfRangeError,
    SessionBusyError,
    SessionNotFoundError,
)
from elman_server.domain.state import DEFAULT
from elman_server.domain.vocabulary import MAX_UNFINISHED
from elman_server.sessions import records
from elman_server.sessions.pages import PageToken
from elman_server.sessions.repository import COMMIT_TRIES, SessionRepository, etag_of
from elman_server.sessions.session import (
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
from elman_server.sessions.transitions import Change, new_etag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elman_server.domain.vocabulary import Vocabulary
    from elman_server.models.registry import ModelInfo, Models
    from elman_server.sessions.lifetimes import Lifetimes
    from elman_server.sessions.stores import Store

SEED_BITS: Final = 32  # of a seed that the server draws: short enough to type
DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000


class Sessions(SessionRepository):
    """All sessions of a server, as callers ask for them."""

    def __init__(
        self, store: Store, models: Models, lifetimes: Lifetimes, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(store, clock)
        self._models = models
        self._lifetimes = lifetimes

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
            state=info.start(initial_state),
            initial_state=initial_state,
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
        revision = None
        for _ in range(COMMIT_TRIES):
            if etag:
                revision = (await self.load(session_id, etag))[1].revision
            with contextlib.suppress(EtagMismatchError):  # a turn has made something durable
                await self._store.delete(session_id, revision)
                break
        else:
            raise SessionBusyError(f"sessions/{session_id}")
        if lease := self.leases.running(session_id):
            lease.interrupt(SessionNotFoundError(f"sessions/{session_id}"))

    async def transcript(self, session_id: str, start: int, end: int | None) -> Transcript:
        """Return a part of what a session has read and written; raises PositionOutOfRangeError."""
        head, segments = await self.read(session_id)
        end = head.position if end is None else end
        check_position("end", end, 0, head.position)
        check_position("start", start, 0, end)
        ids: list[int] = []
        begin = max(0, start - MAX_UNFINISHED)  # a character may have begun before
        for segment in segments:
            if segment.end > begin and segment.start < end:
                ids += segment.ids[max(0, begin - segment.start) : end - segment.start]
        decoder = self.model_of(head).vocabulary.decoder(ids[: start - begin])
        turns = [turn for turn in turns_of(segments) if turn.end > start and turn.start < end]
        return Transcript(decoder.decode(ids[start - begin :]), start, end, tuple(turns))

    async def unfinished(
        self, session_id: str | None, start: int, prompt_end: int, vocabulary: Vocabulary
    ) -> Sequence[int]:
        """Return the last bytes before a turn, if a character that they leave unfinished may go on with its draws."""
        if session_id is None or vocabulary.characters is not None or prompt_end > start:
            return ()
        return await self.before(session_id, start, MAX_UNFINISHED)

    def model_of(self, head: records.Head) -> ModelInfo:
        """Return the model that a session is pinned to; raises ModelMismatchError."""
        model = self._models.get(head.model)
        if model.digest != head.model_digest:
            raise ModelMismatchError(
                f"the session is pinned to {head.model_digest[:12]} of models/{head.model}, this server has "
                f"{model.digest[:12]}; create a new session"
            )
        return model

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
            state_digest=head.state.digest(),
            seed=head.seed,
            labels=head.labels,
            forked_from=head.forked_from,
            initial_state=head.initial_state,
        )


def check_position(name: str, value: int, start: int, end: int) -> None:
    """Refuse a position outside of a range, whose end is allowed."""
    if not start <= value <= end:
        raise PositionOutOfRangeError(name, value, start, end)
