"""`POST /v1/completions`: continue a text."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from elman_client import AsyncClient, AsyncSession
from elman_web.dialect import answers
from elman_web.dialect.answering import Answering, LastEventId, SessionHeader, with_session
from elman_web.dialect.choices import Piece, session_of
from elman_web.dialect.requests import CompletionRequest
from elman_web.http.caller import Client

_KIND = "text_completion"
router = APIRouter()


@router.post("/completions", response_model=answers.Completion, responses={200: {"content": {"text/event-stream": {}}}})
async def complete(
    body: CompletionRequest,
    request: Request,
    client: Client,
    last_event_id: LastEventId = "",
    x_elman_session: SessionHeader = None,
) -> Response:
    """Continue a text, or a session. With `stream`, Last-Event-ID continues an answer that broke off."""
    body = with_session(body, x_elman_session)
    session = await session_of(client, body, last_event_id)
    return await _Answer(body, session).respond(request, client, last_event_id)


class _Answer(Answering):
    body: CompletionRequest

    def __init__(self, body: CompletionRequest, session: AsyncSession | None) -> None:
        super().__init__(body, body.prompts, session, "cmpl")

    async def whole(self, client: AsyncClient) -> dict[str, Any]:
        num_choices = len(self.prompts) * (self.body.n or 1)
        choices = [self._choice(index, finish_reason="length") for index in range(num_choices)]
        for choice in choices:
            await self._echo(client, choice)
        if not self.body.max_chars:
            return self.said(_KIND, choices, prompt_chars=sum(map(len, self.prompts)))
        async with aclosing(self.pieces(client)) as coming:
            async for piece in coming:
                self.note(piece)
                self._add(choices[piece.index], piece, offset=len(choices[piece.index]["text"]))
        return self.said(_KIND, choices)

    async def stream(self, client: AsyncClient, last_event_id: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.pieces(client, last_event_id)) as coming:
            async for piece in coming:
                self.note(piece)
                choice = self._choice(piece.index)
                if piece.started and not last_event_id:
                    await self._echo(client, choice)
                self._add(choice, piece, offset=piece.position - len(piece.details))
                yield self.event(_KIND, choice, piece.event_id)
        yield self.end(_KIND)

    def _choice(self, index: int, finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": finish_reason}

    async def _echo(self, client: AsyncClient, choice: dict[str, Any]) -> None:
        """Put the prompt before the text, scored if probabilities are asked for."""
        if not self.body.echo:
            return
        choice["text"] = prompt = self.prompts[choice["index"] // (self.body.n or 1)]
        if self.body.top_n is None or not prompt:
            return
        if self.session:
            scored = await self.session.score(prompt, top_n=self.body.top_n or None)
        else:
            scored = await client.score(prompt, model=self.body.model, top_n=self.body.top_n or None)
        choice["logprobs"] = answers.logprobs(scored.details, 0)

    def _add(self, choice: dict[str, Any], piece: Piece, offset: int) -> None:
        if piece.details:
            more = answers.logprobs(piece.details, offset)
            before = choice["logprobs"] or {key: [] for key in more}
            choice["logprobs"] = {key: before[key] + more[key] for key in more}
            if self.body.effective:
                choice["effective"] = choice.get("effective", []) + answers.effective(piece.details)
        choice["text"] += piece.text
        choice["position"] = piece.position
        if piece.finished:
            choice["finish_reason"] = answers.reason(piece.finished)
