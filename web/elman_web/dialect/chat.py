"""`POST /v1/chat/completions`: answer in a conversation."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from elman_client import AsyncClient, AsyncSession, CharacterDetail
from elman_web.dialect import answers, template
from elman_web.dialect.answering import Answering, LastEventId, SessionHeader, with_session
from elman_web.dialect.choices import Piece, session_of
from elman_web.dialect.requests import ChatRequest
from elman_web.http.caller import Client

_KIND = "chat.completion"
router = APIRouter()


@router.post(
    "/chat/completions", response_model=answers.ChatCompletion, responses={200: {"content": {"text/event-stream": {}}}}
)
async def chat(
    body: ChatRequest,
    request: Request,
    client: Client,
    last_event_id: LastEventId = "",
    x_elman_session: SessionHeader = None,
) -> Response:
    """Answer in a conversation, which a session may keep. With `stream`, Last-Event-ID continues an answer."""
    body = with_session(body, x_elman_session)
    session = await session_of(client, body, last_event_id)
    return await _Answer(body, session).respond(request, client, last_event_id)


class _Answer(Answering):
    def __init__(self, body: ChatRequest, session: AsyncSession | None) -> None:
        read = template.prompt(body.messages, continues=bool(session and session.info.position))
        # The caller's own stop texts come beside the template's end of a message.
        stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        super().__init__(body.model_copy(update={"stop": [template.END, *stops]}), [read], session, "chatcmpl")

    async def whole(self, client: AsyncClient) -> dict[str, Any]:
        num_choices = self.body.n or 1
        texts, reasons = [""] * num_choices, ["length"] * num_choices
        details: list[tuple[CharacterDetail, ...]] = [()] * num_choices
        async with aclosing(self.pieces(client)) as coming:
            async for piece in coming:
                self.note(piece)
                texts[piece.index] += piece.text
                details[piece.index] += piece.details
                if piece.finished:
                    reasons[piece.index] = answers.reason(piece.finished)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": texts[index]},
                "logprobs": self._logprobs(details[index]),
                "finish_reason": reasons[index],
            }
            for index in range(num_choices)
        ]
        return self.said(_KIND, choices)

    async def stream(self, client: AsyncClient, last_event_id: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.pieces(client, last_event_id)) as coming:
            async for piece in coming:
                self.note(piece)
                choice = {
                    "index": piece.index,
                    "delta": _delta(piece),
                    "logprobs": self._logprobs(piece.details) if piece.details else None,
                    "finish_reason": answers.reason(piece.finished) if piece.finished else None,
                }
                yield self.event(f"{_KIND}.chunk", choice, piece.event_id)
        yield self.end(f"{_KIND}.chunk")

    def _logprobs(self, details: Sequence[CharacterDetail]) -> dict[str, Any] | None:
        return answers.chat_logprobs(details) if self.body.top_n is not None else None


def _delta(piece: Piece) -> dict[str, str]:
    if piece.started:
        return {"role": "assistant", "content": ""}
    return {"content": piece.text} if piece.text else {}
