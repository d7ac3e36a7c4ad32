"""Sessions: created, read, changed and deleted; one writer at a time."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server.domain.errors import (
    CorruptRecordError,
    EtagMismatchError,
    InvalidFieldError,
    ModelMismatchError,
    ModelNotFoundError,
    NotThereError,
    PositionOutOfRangeError,
    RevisionMismatchError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
)
from elman_server.domain.owner import id_of, is_of, prefix_of
from elman_server.domain.requests import ANONYMOUS, Creation
from elman_server.domain.state import DEFAULT
from elman_server.domain.vocabulary import MAX_UNFINISHED, Vocabulary
from elman_server.process.clock import SYSTEM
from elman_server.process.observe.call import this_call
from elman_server.process.observe.counters import COUNTERS
from elman_server.sessions import records
from elman_server.sessions.pages import MAX_PAGE, PageToken, page_limit
from elman_server.sessions.repository import COMMIT_TRIES, MISSING, SessionRepository, etag_of
from elman_server.sessions.session import (
    Expiration,
    Filter,
    LabelChange,
    Page,
    SessionInfo,
    SessionStatus,
    Transcript,
    check_id,
    check_labels,
    turns_of,
)
from elman_server.sessions.transitions import LEASE_SECONDS, Change, new_etag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elman_server.models.registry import ModelInfo, Models
    from elman_server.process.clock import Clock
    from elman_server.sessions.lifetimes import Lifetimes
    from elman_server.sessions.repository import Prepared
    from elman_server.sessions.stores import Store, Stored

SEED_BITS: Final = 32  # of a seed that the server chooses: short enough to type
FEW_SEGMENTS: Final = 16  # as many are read at once rather than one after another


class Sessions(SessionRepository):
    """All sessions of a server, as callers see them."""

    def __init__(
        self,
        store: Store,
        models: Models,
        lifetimes: Lifetimes,
        clock: Clock = SYSTEM,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(store, clock, lease_seconds)
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
        creation: Creation = ANONYMOUS,
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
        return await self.add(session_id, head, expiration, creation=creation)

    async def add(
        self,
        session_id: str,
        head: records.Head,
        expiration: Expiration,
        segments: Sequence[Prepared] = (),
        *,
        creation: Creation = ANONYMOUS,
    ) -> SessionInfo:
        """Store a new session, with times of its own; one that the same request made before is returned instead.

        `segments` are `prepared`.

        Raises:
            InvalidFieldError, SessionExistsError, QuotaError.
        """
        if session_id:
            check_id("session_id", session_id)
        if (made := await self.made(session_id, creation)) is not None:
            return made
        now, key = self._clock(), creation.key(session_id)
        last = now + self._lifetimes.absolute
        head = msgspec.structs.replace(
            head,
            created=now,
            updated=now,
            last=last,
            etag=new_etag(),
            creation=creation.digest,
            owner=creation.owner,
        )
        head = self._lifetimes.expiring("", head, expiration, now)
        parts = await self.bound(key, segments)
        try:
            await self._store.create(key, self.encoded(key, head), head.expires, parts)
        except SessionExistsError:
            if (made := await self.made(session_id, creation)) is None:
                raise
            return made  # by the same request, at the same time
        COUNTERS.sessions_created[head.model] += 1
        this_call().session, this_call().model = id_of(key), head.model
        return self.info(key, head)

    async def made(self, session_id: str, creation: Creation) -> SessionInfo | None:
        """Return the session that a request made when it came before; None: it did not, or has no id.

        Raises:
            InvalidFieldError: another request had the same request id.
        """
        if not creation.request_id:
            return None
        key = creation.key(session_id)
        with contextlib.suppress(NotThereError):
            head, _ = await self.load(key)
            if head.creation == creation.digest:
                return self.info(key, head)
            if not session_id:
                raise InvalidFieldError("request_id", "was used for another request; choose a new one")
        return None

    async def get(self, session_id: str) -> SessionInfo:
        """Return a session."""
        return self.info(session_id, (await self.load(session_id))[0])

    async def list(self, *, page_size: int, page_token: str, filter: Filter) -> Page:  # noqa: A002  the API's word
        """Return a page of sessions in name order; raises InvalidFieldError."""
        limit = page_limit(page_size)
        after = PageToken.decode(page_token, filter.scope)
        # One store page an answer, however few match: an answer's cost is bounded and an empty page is allowed.
        rows = await self._page(filter.owner, after, limit)
        found = []
        for name, stored in rows:
            try:
                head = self.head(name, stored)
            except CorruptRecordError:
                if filter.matches_unreadable:
                    found.append(unreadable(name, stored.expires))
                continue
            info = self.info(name, head)
            if filter.matches(head, info.status):
                found.append(info)
        return Page(tuple(found), PageToken.encode(rows[-1][0], filter.scope) if len(rows) == limit else "")

    async def update(
        self, session_id: str, *, etag: str, labels: LabelChange | None, expiration: Expiration | None
    ) -> SessionInfo:
        """Change labels or expiration; None leaves them. Raises InvalidFieldError, EtagMismatchError."""

        def change(head: records.Head) -> Change:
            now = self._clock()
            head = msgspec.structs.replace(head, updated=now, etag=new_etag())
            if labels is not None:
                changed = labels.applied(head.labels)
                check_labels("session.labels", changed)
                head = msgspec.structs.replace(head, labels=changed)
            if expiration is not None:
                head = self._lifetimes.expiring("session.", head, expiration, now)
            return Change(head)

        return self.info(session_id, await self.change(session_id, change, etag=etag))

    async def delete(self, session_id: str, *, etag: str) -> None:
        """Delete a session; a turn that runs on it ends with SessionNotFoundError."""
        revision = None
        for _ in range(COMMIT_TRIES):
            if etag:
                revision = (await self.load(session_id, etag)).revision
            with contextlib.suppress(RevisionMismatchError):  # a turn has made something durable
                await self._store.delete(session_id, revision)
                COUNTERS.sessions_ended["deleted"] += 1
                break
        else:
            raise SessionBusyError(f"sessions/{session_id}")
        if lease := self.leases.running(session_id):
            lease.interrupt(SessionNotFoundError(f"sessions/{session_id}"))

    async def delete_all(self, filter: Filter) -> int:  # noqa: A002  the API's word
        """Delete every session that a filter keeps; return how many. Sessions made meanwhile may stay."""
        after, num_deleted = "", 0
        while rows := await self._page(filter.owner, after, MAX_PAGE):
            for name, stored in rows:
                try:
                    head = self.head(name, stored)
                    is_kept, etag = filter.matches(head, self.info(name, head).status), etag_of(head)
                except CorruptRecordError:
                    is_kept, etag = filter.matches_unreadable, ""
                # Not one that has changed since, or that another call or its own lifetime has deleted.
                with contextlib.suppress(EtagMismatchError, NotThereError):
                    if is_kept:
                        await self.delete(name, etag=etag)
                        num_deleted += 1
            after = rows[-1][0]
        return num_deleted

    async def _page(self, owner: str, after: str, limit: int) -> Sequence[tuple[str, Stored]]:
        """Return an owner's sessions in name order, from the first after a key; fewer than `limit` are the last."""
        rows = await self._store.page(after or prefix_of(owner), limit)
        return [row for row in rows if is_of(owner, row[0])]

    async def transcript(self, session_id: str, start: int, end: int | None) -> Transcript:
        """Return a part of a session's text; raises PositionOutOfRangeError. Only what it needs is read."""
        for _ in range(COMMIT_TRIES):
            head, _ = await self.load(session_id)
            last = head.position if end is None else end
            check_position("end", last, 0, head.position)
            check_position("start", start, 0, last)
            index, segments = await self._segments_of(session_id, head, max(0, start - MAX_UNFINISHED), last)
            vocabulary = await self._vocabulary(session_id, head)
            if (await self.load(session_id))[0].etag == head.etag:
                return _part(vocabulary, index, segments, start, last)
        raise SessionBusyError(f"sessions/{session_id}")

    async def _segments_of(
        self, session_id: str, head: records.Head, start: int, end: int
    ) -> tuple[int, Sequence[records.Segment]]:
        """Return the segments of all turns that have characters from `start` to `end`, and the first one's index."""
        count = head.num_segments
        if count <= FEW_SEGMENTS or end - start == head.position:
            return 0, await self.segments(session_id, 0, count)
        first = await self._index_at(session_id, start, 0, count)
        last = min(await self._index_at(session_id, max(start, end - 1), first, count) + 1, count)
        found = list(await self.segments(session_id, first, last))
        while first and not (found and found[0].parameters):  # the turn began before
            before = max(0, first - FEW_SEGMENTS)
            found = [*await self.segments(session_id, before, first), *found]
            first = before
        is_whole = bool(found[-1:]) and found[-1].outcome is not None
        while last < count and not is_whole:  # the turn ends later
            more = await self.segments(session_id, last, min(last + FEW_SEGMENTS, count))
            last += FEW_SEGMENTS
            found += more
            is_whole = any(segment.parameters or segment.outcome for segment in more)
        skipped = next((index for index, segment in enumerate(found) if segment.parameters), len(found))
        return first + skipped, found[skipped:]

    async def _index_at(self, session_id: str, position: int, low: int, high: int) -> int:
        """Return the index of the segment that holds a position, by bisection; `high` if there is none."""
        while low < high:
            middle = (low + high) // 2
            found = await self.segments(session_id, middle, middle + 1)
            is_before = bool(found) and found[0].end <= position  # none: the session has changed
            low, high = (middle + 1, high) if is_before else (low, middle)
        return low

    async def unfinished(
        self, session_id: str | None, start: int, prompt_end: int, vocabulary: Vocabulary
    ) -> Sequence[int]:
        """Return the last bytes before a turn, if its output may complete a character that they begin."""
        if session_id is None or vocabulary.characters is not None or prompt_end > start:
            return ()
        return await self.before(session_id, start, MAX_UNFINISHED)

    async def _vocabulary(self, session_id: str, head: records.Head) -> Vocabulary:
        """Return what a session's text is made of: its first turn says so, if no model does."""
        try:
            return self.model_of(head).vocabulary
        except (ModelMismatchError, ModelNotFoundError):
            first = await self.segments(session_id, 0, min(1, head.num_segments))
            parameters = first[0].parameters if first else None
            symbols = parameters.symbols if parameters else None
            if first and symbols is None:
                raise  # an earlier server stored it
            return Vocabulary(symbols or None)

    def model_of(self, head: records.Head) -> ModelInfo:
        """Return the model that a session is pinned to; raises ModelMismatchError, ModelNotFoundError."""
        return self._models.pinned(head.model, head.model_digest)

    async def pinned(self) -> set[str]:
        """Return the digests of all models that a session is pinned to."""
        after, found = "", set()
        while rows := await self._store.page(after, MAX_PAGE):
            for key, stored in rows:
                with contextlib.suppress(CorruptRecordError):
                    found.add(self.head(key, stored).model_digest)
            after = rows[-1][0]
        return found

    def info(self, name: str, head: records.Head) -> SessionInfo:
        """Return what callers see of a session."""
        status = SessionStatus.EXPIRED if head.expires <= self._clock.expiry() else SessionStatus.ACTIVE
        if self.leases.is_generating(name) or self.is_leased(head):
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
            fingerprint=head.fingerprint,
        )


def _part(vocabulary: Vocabulary, index: int, segments: Sequence[records.Segment], start: int, end: int) -> Transcript:
    """Return a part of a session's text from the segments that hold it."""
    ids: list[int] = []
    begin = max(0, start - MAX_UNFINISHED)  # a character may have begun before
    for segment in segments:
        if segment.end > begin and segment.start < end:
            ids += segment.ids[max(0, begin - segment.start) : end - segment.start]
    if len(ids) != end - begin:
        raise CorruptRecordError(MISSING)
    decoder = vocabulary.decoder(ids[: start - begin])
    turns = [turn for turn in turns_of(segments, index) if turn.end > start and turn.start < end]
    return Transcript(decoder.decode(ids[start - begin :]), start, end, tuple(turns))


def unreadable(name: str, expires: float) -> SessionInfo:
    """Return what callers see of a session whose record cannot be read: they can delete it."""
    return SessionInfo(
        name=name,
        model="",
        model_digest="",
        status=SessionStatus.UNREADABLE,
        create_time=0,
        update_time=0,
        expire_time=expires,
        etag="",
        position=0,
        turn_count=0,
        state_digest="",
        seed=0,
        labels={},
    )


def check_position(name: str, value: int, start: int, end: int) -> None:
    """Refuse a position outside of a range, whose end is allowed."""
    if not start <= value <= end:
        raise PositionOutOfRangeError(name, value, start, end)
