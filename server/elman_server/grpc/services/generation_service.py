"""GenerationService: convert, call, convert."""
# ruff: noqa: N802, D102  the methods are named and documented by elman/v1/generation.proto

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from elman.v1.generation_pb2 import (
    AppendRequest,
    CancelRequest,
    CancelResponse,
    ChatRequest,
    ChatResponse,
    GenerateRequest,
    GenerateResponse,
    ResumeRequest,
    ResumeResponse,
    ScoreRequest,
)
from elman.v1.generation_pb2_grpc import GenerationServiceServicer
from elman_server.domain.errors import DeadlineError
from elman_server.domain.events import Event, Finished, FinishReason
from elman_server.grpc.messages.build import (
    from_append,
    from_chat,
    from_generated,
    from_resumed,
    from_score,
    from_session,
)
from elman_server.grpc.messages.names import session_key
from elman_server.grpc.messages.pace import Places
from elman_server.grpc.messages.parse import to_action, to_append, to_generate, to_request_id, to_resume, to_score
from elman_server.turns.chat import Chat

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from elman_server.turns.service import Turns

    Context = grpc.aio.ServicerContext[Any, Any]


class GenerationService(GenerationServiceServicer):
    """Serves elman.v1.GenerationService over `Turns`; at most `max_chats` chats are open at once."""

    def __init__(self, turns: Turns, max_chats: int) -> None:
        self._turns = turns
        self._chats = Places("streams", max_chats)

    async def Generate(self, request: GenerateRequest, context: Context) -> AsyncGenerator[GenerateResponse, None]:
        turn = to_generate(request, context.time_remaining())
        del request  # not kept while the stream runs
        async with contextlib.aclosing(self._turns.generate(turn)) as events:
            async for happened in events:
                yield from_generated(happened)
                _check_deadline(happened)

    async def Resume(self, request: ResumeRequest, context: Context) -> AsyncGenerator[ResumeResponse, None]:
        turn = to_resume(request, context.time_remaining())
        async with contextlib.aclosing(self._turns.resume(turn)) as events:
            async for happened in events:
                yield from_resumed(happened)
                _check_deadline(happened)

    async def Chat(self, requests: AsyncIterator[ChatRequest], context: Context) -> AsyncGenerator[ChatResponse, None]:
        actions = (to_action(request, context.time_remaining()) async for request in requests)
        with self._chats:
            async with contextlib.aclosing(Chat(self._turns, actions).events()) as events:
                async for happened in events:
                    yield from_chat(happened)
                    _check_deadline(happened)

    async def Cancel(self, request: CancelRequest, _: Context) -> CancelResponse:
        position = request.position if request.HasField("position") else None
        name, request_id = session_key("session", request.session), to_request_id(request.request_id)
        info = await self._turns.cancel(name, position, request_id)
        return CancelResponse(session=from_session(info))

    async def Append(self, request: AppendRequest, _: Context) -> bytes:  # type: ignore[override]  # encoded in pieces
        turn = to_append(request)
        del request  # its text is long
        info, details = await self._turns.append(turn)
        return await from_append(info, details)

    async def Score(self, request: ScoreRequest, _: Context) -> bytes:  # type: ignore[override]  # encoded in pieces
        text = to_score(request)
        del request  # its text is long
        return await from_score(await self._turns.score(text))


def _check_deadline(happened: tuple[Event, ...]) -> None:
    """End a call like one whose deadline passed at its caller first: a deadline shows in one way."""
    if isinstance(happened[-1], Finished) and happened[-1].reason is FinishReason.DEADLINE:
        raise DeadlineError
