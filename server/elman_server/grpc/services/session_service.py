"""SessionService: convert, call, convert."""
# ruff: noqa: N802, D102  the methods are named and documented by elman/v1/session.proto

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from elman.v1.session_pb2 import (
    CreateSessionRequest,
    CreateSessionResponse,
    DeleteSessionRequest,
    DeleteSessionResponse,
    DeleteSessionsRequest,
    DeleteSessionsResponse,
    ExportSessionRequest,
    ExportSessionResponse,
    ForkSessionRequest,
    ForkSessionResponse,
    GetSessionRequest,
    GetSessionResponse,
    GetTranscriptRequest,
    GetTranscriptResponse,
    ImportSessionRequest,
    ImportSessionResponse,
    ListSessionsRequest,
    ListSessionsResponse,
    ReplaySessionRequest,
    ReplaySessionResponse,
    RewindSessionRequest,
    RewindSessionResponse,
    UpdateSessionRequest,
    UpdateSessionResponse,
)
from elman.v1.session_pb2_grpc import SessionServiceServicer
from elman_server.domain.state import DEFAULT
from elman_server.grpc.messages.build import from_replayed, from_session, from_transcript
from elman_server.grpc.messages.filters import parse_filter
from elman_server.grpc.messages.names import model_version, session_key
from elman_server.grpc.messages.pace import Places
from elman_server.grpc.messages.parse import to_changes, to_creation, to_expiration, to_import

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from elman_server.history.service import History
    from elman_server.sessions.service import Sessions

    Context = grpc.aio.ServicerContext[Any, Any]


PIECE_BYTES: Final = 1 << 16  # of a snapshot, in one message
MAX_COPIES: Final = 16  # exports and imports, which have a whole snapshot in memory while their callers take their time
MAX_READERS: Final = 64  # calls that have a whole session in memory


class SessionService(SessionServiceServicer):
    """Serves elman.v1.SessionService over `Sessions` and their `History`."""

    def __init__(self, sessions: Sessions, history: History) -> None:
        self._sessions = sessions
        self._history = history
        self._copies = Places("calls that read sessions", MAX_COPIES)
        self._readers = Places("calls that read sessions", MAX_READERS)

    async def CreateSession(self, request: CreateSessionRequest, _: Context) -> CreateSessionResponse:
        model, version = model_version("model", request.model)
        info = await self._sessions.create(
            model=model,
            version=version,
            session_id=request.session_id,
            seed=request.seed if request.HasField("seed") else None,
            expiration=to_expiration(request),
            labels=dict(request.labels),
            initial_state=request.initial_state or DEFAULT,
            creation=to_creation(request),
        )
        return CreateSessionResponse(session=from_session(info))

    async def GetSession(self, request: GetSessionRequest, _: Context) -> GetSessionResponse:
        info = await self._sessions.get(session_key("name", request.name))
        return GetSessionResponse(session=from_session(info))

    async def ListSessions(self, request: ListSessionsRequest, _: Context) -> ListSessionsResponse:
        page = await self._sessions.list(
            page_size=request.page_size, page_token=request.page_token, filter=parse_filter(request.filter)
        )
        sessions = [from_session(info) for info in page.sessions]
        return ListSessionsResponse(sessions=sessions, next_page_token=page.next_page_token)

    async def UpdateSession(self, request: UpdateSessionRequest, _: Context) -> UpdateSessionResponse:
        name = session_key("session.name", request.session.name)
        labels, expiration = to_changes(request)
        info = await self._sessions.update(name, etag=request.session.etag, labels=labels, expiration=expiration)
        return UpdateSessionResponse(session=from_session(info))

    async def DeleteSession(self, request: DeleteSessionRequest, _: Context) -> DeleteSessionResponse:
        await self._sessions.delete(session_key("name", request.name), etag=request.etag)
        return DeleteSessionResponse()

    async def DeleteSessions(self, request: DeleteSessionsRequest, _: Context) -> DeleteSessionsResponse:
        num_deleted = await self._sessions.delete_all(parse_filter(request.filter, is_required=True))
        return DeleteSessionsResponse(deleted_count=num_deleted)

    async def GetTranscript(self, request: GetTranscriptRequest, _: Context) -> GetTranscriptResponse:
        end = request.end if request.HasField("end") else None
        with self._readers:
            transcript = await self._sessions.transcript(session_key("name", request.name), request.start, end)
            return from_transcript(transcript)

    async def ForkSession(self, request: ForkSessionRequest, _: Context) -> ForkSessionResponse:
        position = request.position if request.HasField("position") else None
        name, creation = session_key("name", request.name), to_creation(request)
        with self._readers:
            forks = await self._history.fork(name, position=position, count=request.count, creation=creation)
        return ForkSessionResponse(sessions=[from_session(info) for info in forks])

    async def RewindSession(self, request: RewindSessionRequest, _: Context) -> RewindSessionResponse:
        name = session_key("name", request.name)
        with self._readers:
            info = await self._history.rewind(name, position=request.position, etag=request.etag)
        return RewindSessionResponse(session=from_session(info))

    async def ExportSession(
        self, request: ExportSessionRequest, _: Context
    ) -> AsyncGenerator[ExportSessionResponse, None]:
        with self._copies:
            snapshot = await self._history.export(session_key("name", request.name))
            for at in range(0, len(snapshot), PIECE_BYTES):
                yield ExportSessionResponse(snapshot=snapshot[at : at + PIECE_BYTES])

    async def ImportSession(self, requests: AsyncIterator[ImportSessionRequest], _: Context) -> ImportSessionResponse:
        with self._copies:
            request = await to_import(requests)
            info = await self._history.restore(request.snapshot, request.session_id, to_creation(request))
            return ImportSessionResponse(session=from_session(info))

    async def ReplaySession(
        self, request: ReplaySessionRequest, _: Context
    ) -> AsyncGenerator[ReplaySessionResponse, None]:
        with self._readers:
            async with contextlib.aclosing(self._history.replay(session_key("name", request.name))) as turns:
                async for replayed in turns:
                    yield from_replayed(replayed)
