"""SessionService: convert, call, convert."""
# ruff: noqa: N802, D102  the methods are named and documented by elman/v1/session.proto

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

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
from elman_server.grpc.messages.parse import to_changes, to_creation, to_expiration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import grpc

    from elman_server.history.service import History
    from elman_server.sessions.service import Sessions

    Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(SessionServiceServicer):
    """Serves elman.v1.SessionService over `Sessions` and their `History`."""

    def __init__(self, sessions: Sessions, history: History) -> None:
        self._sessions = sessions
        self._history = history

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
        transcript = await self._sessions.transcript(session_key("name", request.name), request.start, end)
        return from_transcript(transcript)

    async def ForkSession(self, request: ForkSessionRequest, _: Context) -> ForkSessionResponse:
        position = request.position if request.HasField("position") else None
        name, creation = session_key("name", request.name), to_creation(request)
        forks = await self._history.fork(name, position=position, count=request.count, creation=creation)
        return ForkSessionResponse(sessions=[from_session(info) for info in forks])

    async def RewindSession(self, request: RewindSessionRequest, _: Context) -> RewindSessionResponse:
        name = session_key("name", request.name)
        info = await self._history.rewind(name, position=request.position, etag=request.etag)
        return RewindSessionResponse(session=from_session(info))

    async def ExportSession(self, request: ExportSessionRequest, _: Context) -> ExportSessionResponse:
        return ExportSessionResponse(snapshot=await self._history.export(session_key("name", request.name)))

    async def ImportSession(self, request: ImportSessionRequest, _: Context) -> ImportSessionResponse:
        info = await self._history.restore(request.snapshot, request.session_id, to_creation(request))
        return ImportSessionResponse(session=from_session(info))

    async def ReplaySession(
        self, request: ReplaySessionRequest, _: Context
    ) -> AsyncGenerator[ReplaySessionResponse, None]:
        async with contextlib.aclosing(self._history.replay(session_key("name", request.name))) as turns:
            async for replayed in turns:
                yield from_replayed(replayed)
