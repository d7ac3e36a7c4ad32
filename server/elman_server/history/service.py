"""History: forks, rewinds, replays and snapshots of sessions, at any position."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from msgspec.structs import replace

from elman_server.domain.errors import (
    InvalidFieldError,
    ModelMismatchError,
    ModelNotFoundError,
    SessionBusyError,
    SessionExpiredError,
    ValueRangeError,
)
from elman_server.domain.owner import id_of
from elman_server.domain.requests import ANONYMOUS, Creation
from elman_server.engine.job import Job
from elman_server.engine.prefill import read
from elman_server.history.all_or_none import all_or_none
from elman_server.history.replay import replay
from elman_server.history.snapshot import seal, unseal
from elman_server.sessions.service import check_position
from elman_server.sessions.session import Expiration, turns_of
from elman_server.sessions.transitions import Change, new_etag

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from elman_server.domain.state import SessionState
    from elman_server.engine import AnyEngine
    from elman_server.history.replay import Replayed
    from elman_server.models.registry import Models
    from elman_server.sessions.records import Head, Segment
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import CommittedTurn, SessionInfo

log = structlog.get_logger(__name__)

MAX_FORKS: Final = 100  # of one call


class Cut(NamedTuple):
    """A session up to a position: its whole segments, and the beginning of one that is cut."""

    whole: list[Segment]
    part: tuple[Segment, ...]

    @property
    def segments(self) -> list[Segment]:
        """Both together."""
        return [*self.whole, *self.part]


class History:
    """Works on the past of a server's sessions.

    Args:
        engines: by the digest of their model.
        key: signs snapshots.
        old_key: signed earlier ones; None: there is none.
    """

    def __init__(
        self,
        sessions: Sessions,
        models: Models,
        engines: Mapping[str, AnyEngine],
        key: bytes,
        old_key: bytes | None = None,
    ) -> None:
        self._sessions = sessions
        self._models = models
        self._engines = engines
        self._key = key
        self._old_key = old_key

    async def fork(
        self, session_id: str, *, position: int | None, count: int, creation: Creation = ANONYMOUS
    ) -> list[SessionInfo]:
        """Make sessions that equal this one at a position; None: as it is now. Those of the same request stay.

        Raises:
            PositionOutOfRangeError, InvalidFieldError, QuotaError, SessionExpiredError; then none is made. A call that
            is cancelled makes all if it has a request id, so that it can be sent again; else none.
        """
        if not 0 <= count <= MAX_FORKS:
            raise ValueRangeError("count", count, "0", str(MAX_FORKS), f"from 1 to {MAX_FORKS}, or 0 for 1")
        creations = [creation.part(index) for index in range(count or 1)]
        forks = {one: info for one in creations if (info := await self._sessions.made("", one)) is not None}
        if len(forks) == len(creations):
            return list(forks.values())
        head, found = await self._sessions.read(session_id)
        for known in forks.values():  # the session may have moved on since
            position = known.forked_from[1] if known.forked_from else position
        position = head.position if position is None else position
        cut, head = await self._at(head, found, position)
        head = replace(head, recent=[], older=b"", last_token=b"", open=None, forked_from=(id_of(session_id), position))
        expiration = _expiration_of(head)
        if expiration.expire_time is not None and expiration.expire_time <= self._sessions.now():
            raise SessionExpiredError(f"sessions/{session_id}")  # a turn runs on it, which keeps it a little longer

        missing = [one for one in creations if one not in forks]
        segments = await self._sessions.prepared(cut.segments)

        async def make(number: int) -> SessionInfo:
            return await self._sessions.add("", head, expiration, segments, creation=missing[number])

        made = await all_or_none(self._sessions, len(missing), make, is_repeatable=bool(creation.request_id))
        forks.update(zip(missing, made, strict=True))
        return [forks[one] for one in creations]

    async def rewind(self, session_id: str, *, position: int, etag: str) -> SessionInfo:
        """Return a session to what it was at a position; delete what came after.

        Raises:
            SessionBusyError, EtagMismatchError, PositionOutOfRangeError.
        """
        lease = await self._sessions.lease(session_id)
        try:
            await self._sessions.idle(session_id, etag)
            head, segments = await self._sessions.read(session_id)
            cut, rewound = await self._at(head, segments, position)
            recent = [(key, first) for key, first in head.recent if _end_of(segments, first) <= position]
            token = secrets.token_bytes(8)

            def change(now: Head) -> Change | None:
                if now.last_token == token:
                    return None
                if now.open is not None or now.etag != head.etag:
                    raise SessionBusyError(f"sessions/{session_id}")
                new = replace(rewound, recent=recent, last_token=token, etag=new_etag())
                return Change(self._sessions.renewed(new), cut.part, keep=len(cut.whole))

            return self._sessions.info(session_id, await self._sessions.change(session_id, change))
        finally:
            self._sessions.leases.release(lease)

    async def export(self, session_id: str) -> bytes:
        """Return a session as a snapshot, without its running turn."""
        head, segments = await self._sessions.read(session_id)
        return await seal(self._key, replace(head, open=None), segments)

    async def restore(self, snapshot: bytes, session_id: str, creation: Creation = ANONYMOUS) -> SessionInfo:
        """Make a session from a snapshot; "" lets the server choose a UUID.

        Raises:
            InvalidFieldError: it was changed, signed with another key or for another owner, or its session has expired.
            ModelMismatchError: its model is not served here.
            SessionExistsError, QuotaError.
        """
        head, segments = await unseal(self._key, snapshot, creation.owner, self._old_key)
        try:
            model = self._models.pinned(head.model, head.model_digest)
        except (ModelMismatchError, ModelNotFoundError):
            raise ModelMismatchError(
                f"the snapshot is of {head.model_digest[:12]}, models/{head.model}, which this server does not serve"
            ) from None
        fingerprint = _fingerprint_of(turns_of(segments))
        if fingerprint not in {"", model.fingerprint}:
            log.warning("session_of_other_arithmetic", model=model.name, fingerprint=fingerprint)
        head = replace(head, model=model.name, model_version=model.version, fingerprint=fingerprint)
        expiration = _expiration_of(head)
        if expiration.expire_time is not None and expiration.expire_time <= self._sessions.now():
            raise InvalidFieldError("snapshot", f"is of a session that expired at {_utc(expiration.expire_time)}")
        prepared = await self._sessions.prepared(segments)
        return await self._sessions.add(session_id, head, expiration, prepared, creation=creation)

    def replay(self, session_id: str) -> AsyncGenerator[Replayed, None]:
        """Run every turn of a session again from the beginning; end at the first difference."""
        return replay(self._sessions, self._engines, session_id)

    async def _at(self, head: Head, segments: Sequence[Segment], position: int) -> tuple[Cut, Head]:
        """Return a session's segments and head at a position."""
        check_position("position", position, 0, head.position)
        model = self._sessions.model_of(head)
        state = head.state
        if position < head.position:
            state = await state_at(self._engines[model.digest], model.start(head.initial_state), segments, position)
        cut = cut_at(segments, position)
        turns = turns_of(cut.segments)
        head = replace(
            head,
            position=position,
            turn_count=len(turns),
            state=state,
            num_segments=len(cut.segments),
            checkpoint=max((segment.end for segment in cut.whole if segment.state), default=0),
            fingerprint=_fingerprint_of(turns),
        )
        return cut, head


def cut_at(segments: Sequence[Segment], position: int) -> Cut:
    """Return segments up to a position. A turn that is cut has no outcome."""
    whole = [segment for segment in segments if segment.end <= position]
    rest = segments[len(whole) :]
    if not rest or rest[0].start == position:
        return Cut(whole, ())
    cut = rest[0]
    packed = cut.packed[: (position - cut.start) * cut.id_bytes]
    part = replace(cut, prompt_end=min(cut.prompt_end, position), packed=packed, outcome=None, state=None)
    return Cut(whole, (part,))


async def state_at(
    engine: AnyEngine, initial: SessionState, segments: Sequence[Segment], position: int
) -> SessionState:
    """Return the state at a position: read the text from the nearest stored state on."""
    state, start = initial, 0
    for segment in segments:
        if segment.state is not None and segment.end <= position:
            state, start = segment.state, segment.end
    ids: list[int] = []
    for segment in segments:
        if segment.end > start and segment.start < position:
            ids += segment.ids[max(0, start - segment.start) : position - segment.start]
    return (await read(engine, Job(state, start, ids))).state if ids else state


def _expiration_of(head: Head) -> Expiration:
    """Return the expiration of a copy: the same idle time, or the same fixed moment."""
    return Expiration(expire_time=head.expires) if head.ttl is None else Expiration(head.ttl)


def _fingerprint_of(turns: Sequence[CommittedTurn]) -> str:
    """Return the fingerprint of the arithmetic that ran the last turn; "" if there is none."""
    return turns[-1].parameters.fingerprint if turns else ""


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _end_of(segments: Sequence[Segment], first: int) -> int:
    """Return the end of the turn that begins with a segment."""
    return turns_of(segments[first:], first)[0].end
