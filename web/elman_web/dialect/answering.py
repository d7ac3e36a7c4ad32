"""What answering a completion and a chat have in common: a head, a session, and how far the work is."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, TypeVar
from uuid import uuid4

from fastapi import Header, Request
from fastapi.responses import JSONResponse, Response

from elman_client import AsyncClient, AsyncSession, InvalidArgumentError
from elman_web.dialect.answers import usage
from elman_web.dialect.choices import Piece, pieces
from elman_web.dialect.requests import Generation
from elman_web.http.events import DONE, EventStream, event, while_connected

SessionHeader = Annotated[
    str | None, Header(alias="x-elman-session", description="The session, for clients that cannot send `session`.")
]
LastEventId = Annotated[str, Header(description="The id of the last event of a stream that broke off.")]
_Body = TypeVar("_Body", bound=Generation)


def with_session(body: _Body, session: str | None) -> _Body:
    """Return the request with the session of its header, if that has one; raises InvalidArgumentError if two differ."""
    if not session:
        return body
    if body.session not in {None, session}:
        raise InvalidArgumentError("x-elman-session and session are not equal", reason="TWO_SESSIONS")
    if (body.n or 1) > 1:
        raise InvalidArgumentError("n above 1 needs a text without a session: fork it for others", reason="SESSION_N")
    return body.model_copy(update={"session": session})


class Answering(ABC):
    """The answer to one request, whole or as it comes."""

    def __init__(self, body: Generation, prompts: Sequence[str], session: AsyncSession | None, kind: str) -> None:
        self.body = body
        self.prompts = prompts
        self.session = session
        self._prompt_chars = self._generated_chars = 0
        self._head: dict[str, Any] = {"id": f"{kind}-{uuid4().hex}", "created": int(time.time()), "model": body.model}
        if session:
            self._head["session"] = session.name

    @abstractmethod
    async def whole(self, client: AsyncClient) -> dict[str, Any]:
        """Return the whole answer."""

    @abstractmethod
    def stream(self, client: AsyncClient, last_event_id: str) -> AsyncGenerator[bytes, None]:
        """Iterate over the answer's events."""

    async def respond(self, request: Request, client: AsyncClient, last_event_id: str) -> Response:
        """Answer as the request asks; the session is in a header too."""
        answer: Response
        if self.body.stream:
            answer = await EventStream.begin(request, self.stream(client, last_event_id))
        else:
            answer = JSONResponse(await while_connected(request, self.whole(client)))
        if self.session:
            answer.headers["x-elman-session"] = self.session.name
        return answer

    def pieces(self, client: AsyncClient, last_event_id: str = "") -> AsyncGenerator[Piece, None]:
        """Return the pieces of all choices."""
        return pieces(client, self.body, self.prompts, self.session, last_event_id)

    def note(self, piece: Piece) -> None:
        """Remember what a piece says of the whole answer."""
        if piece.started:
            self._head.setdefault("system_fingerprint", piece.started.model_digest[:16])
            self._head.setdefault("seed", piece.started.sampling.seed)
        if piece.finished:
            self._prompt_chars += piece.finished.usage.prompt_chars
            self._generated_chars += piece.finished.usage.generated_chars

    def said(self, kind: str, choices: Sequence[dict[str, Any]], *, prompt_chars: int = 0) -> dict[str, Any]:
        """Return a whole answer."""
        used = usage(prompt_chars or self._prompt_chars, self._generated_chars)
        return {**self._head, "object": kind, "choices": choices, "usage": used}

    def event(self, kind: str, choice: dict[str, Any], event_id: str) -> bytes:
        """Return one event of a stream."""
        return event({**self._head, "object": kind, "choices": [choice]}, event_id=event_id)

    def end(self, kind: str) -> bytes:
        """Return the last events of a stream."""
        if not (self.body.stream_options and self.body.stream_options.include_usage):
            return DONE
        used = usage(self._prompt_chars, self._generated_chars)
        return event({**self._head, "object": kind, "choices": [], "usage": used}) + DONE
