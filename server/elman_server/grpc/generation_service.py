"""GenerationService: convert, call, convert."""
# ruff: noqa: N802, D102  the methods are named and documented by elman/v1/generation.proto

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from elman.v1.generation_pb2 import (
    AppendRequest,
    AppendResponse,
    CancelRequest,
    CancelResponse,
    ChatRequest,
    ChatResponse,
    GenerateRequest,
    GenerateResponse,
    ResumeRequest,
    ResumeResponse,
    ScoreRequest,
    ScoreResponse,
)
from elman.v1.generation_pb2_grpc import GenerationServiceServicer
from elman_server.domain.errors import QuotaError
from elman_server.grpc.messages.build import (
    from_chat,
    from_details,
    from_generated,
    from_resumed,
    from_score,
    from_session,
)
from elman_server.grpc.messages.names import session_key
from elman_server.grpc.messages.parse import to_action, to_append, to_generate, to_request_id, to_resume, to_score
from elman_server.process.observe.counters import COUNTERS
from elman_server.turns.chat import Chat

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from elman_server.turns.service import Turns

    Context = grpc.aio.ServicerContext[Any, Any]

_RETRY_AFTER: Final = 1.0


class GenerationService(GenerationServiceServicer):
    """Serves elman.v1.GenerationService over `Turns`, at most `max_streams` at once."""

    def __init__(self, turns: Turns, max_streams: int) -> None:
        self._turns = turns
        self._places = _Places(max_streams)

    async def Generate(self, request: GenerateRequest, context: Context) -> AsyncGenerator[GenerateResponse, None]:
        turn = to_generate(request, context.time_remaining())
        del request  # not kept while the stream runs
        with self._places:
            async with contextlib.aclosing(self._turns.generate(turn)) as events:
                async for happened in events:
                    yield from_generated(happened)

    async def Resume(self, request: ResumeRequest, context: Context) -> AsyncGenerator[ResumeResponse, None]:
        turn = to_resume(request, context.time_remaining())
        with self._places:
            async with contextlib.aclosing(self._turns.resume(turn)) as events:
                async for happened in events:
                    yield from_resumed(happened)

    async def Chat(self, requests: AsyncIterator[ChatRequest], context: Context) -> AsyncGenerator[ChatResponse, None]:
        actions = (to_action(request, context.time_remaining()) async for request in requests)
        with self._places:
            async with contextlib.aclosing(Chat(self._turns, actions).events()) as events:
                async for happened in events:
                    yield from_chat(happened)

    async def Cancel(self, request: CancelRequest, _: Context) -> CancelResponse:
        position = request.position if request.HasField("position") else None
        name, request_id = session_key("session", request.session), to_request_id(request.request_id)
        info = await self._turns.cancel(name, position, request_id)
        return CancelResponse(session=from_session(info))

    async def Append(self, request: AppendRequest, _: Context) -> AppendResponse:
        info, details = await self._turns.append(to_append(request))
        return AppendResponse(session=from_session(info), details=from_details(details))

    async def Score(self, request: ScoreRequest, _: Context) -> ScoreResponse:
        return from_score(await self._turns.score(to_score(request)))


class _Places:
    """Limits how many streams run at once; one object for all of them, to be entered by each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._num_taken = 0

    def __enter__(self) -> None:
        if self._num_taken >= self._most:
            raise QuotaError("streams", self._most, _RETRY_AFTER)
        self._num_taken += 1
        COUNTERS.num_streams += 1

    def __exit__(self, *_: object) -> None:
        self._num_taken -= 1
        COUNTERS.num_streams -= 1
