"""`/v1/sessions`: create, read, list, change, fork, rewind, save, load, replay and delete them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from elman_client import AsyncSession, SessionInfo
from elman_web.dialect.answers import Logprobs, logprobs
from elman_web.dialect.requests import Name, Seed, Strict
from elman_web.http.caller import Client
from elman_web.http.events import DONE, EventStream, event

router = APIRouter(prefix="/sessions")
_MAX_LISTED = 1000
_SECONDS_A_CENTURY = 3_155_760_000
SessionId = Annotated[str, Path(pattern="^[a-z0-9-]{1,63}$", description="The last part of the session's name.")]
Position = Annotated[int, Field(ge=0, lt=2**63)]
Labels = Annotated[dict[str, str], Field(max_length=64)]
Ttl = Annotated[float, Field(gt=0, le=_SECONDS_A_CENTURY)]


class Session(BaseModel):
    """A session at one moment; the client's `SessionInfo` explains each field."""

    name: str
    model: str
    model_digest: str
    state: str
    create_time: str
    update_time: str
    expire_time: str
    etag: str
    position: int
    turn_count: int
    state_digest: str
    seed: int
    labels: dict[str, str]
    forked_from: dict[str, Any] | None
    initial_state: str


class SessionList(BaseModel):
    """The first sessions in the order of their names; `has_more` if there are others."""

    data: list[Session]
    has_more: bool


class TranscriptAnswer(BaseModel):
    """The text of positions [start, end), and the turns that touch them."""

    text: str
    start: int
    end: int
    turns: list[dict[str, Any]]


class NewSession(Strict):
    """A session to create at the beginning of a model."""

    model: Name
    session_id: Annotated[str, Field(pattern=r"^[a-z0-9-]{4,63}$")] | None = None
    seed: Seed | None = None
    ttl_seconds: Ttl | None = None
    labels: Labels | None = None
    initial_state: Name | None = None


class SessionChange(Strict):
    """New labels, or how long it may be idle."""

    labels: Labels | None = None
    ttl_seconds: Ttl | None = None
    etag: str | None = None


class Fork(Strict):
    """Where to fork; without a position as it is now."""

    position: Position | None = None
    count: Annotated[int, Field(ge=1, le=100)] = 1


class Rewind(Strict):
    """What to return to. `etag`: only if the session is still that one."""

    position: Position
    etag: str | None = None


class TextToRead(Strict):
    """A text that a session reads, without an answer; `logprobs`: report each character's, and that many likeliest."""

    text: Annotated[str, Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    request_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] | None = None


class Appended(BaseModel):
    """The session after it read a text."""

    session: Session
    logprobs: Logprobs | None = None


@router.post("", status_code=201)
async def create(body: NewSession, client: Client) -> Session:
    """Create a session."""
    session = await client.create_session(
        body.model,
        session_id=body.session_id,
        seed=body.seed,
        ttl=None if body.ttl_seconds is None else timedelta(seconds=body.ttl_seconds),
        labels=body.labels,
        initial_state=body.initial_state,
    )
    return _answer(session.info)


@router.get("")
async def list_sessions(
    client: Client,
    filter: Annotated[str, Query(max_length=1000)] = "",  # noqa: A002 - the contract's word
    limit: Annotated[int, Query(ge=1, le=_MAX_LISTED)] = 100,
) -> SessionList:
    """List sessions. `filter` joins terms by AND: `model = "models/x"`, `labels.key = "value"`."""
    found: list[Session] = []
    async with aclosing(client.list_sessions(filter)) as sessions:  # type: ignore[type-var] # it is a generator
        async for session in sessions:
            if len(found) == limit:
                return SessionList(data=found, has_more=True)
            found.append(_answer(session.info))
    return SessionList(data=found, has_more=False)


@router.post("/import", status_code=201)
async def load(
    snapshot: Annotated[bytes, Body(media_type="application/octet-stream")],
    client: Client,
    session_id: Annotated[str | None, Query(pattern=r"^[a-z0-9-]{4,63}$")] = None,
) -> Session:
    """Create a session from what its export returned."""
    return _answer((await client.import_session(snapshot, session_id=session_id)).info)


@router.get("/{session_id}")
async def get(session_id: SessionId, client: Client) -> Session:
    """Return a session."""
    return _answer((await client.get_session(session_id)).info)


@router.patch("/{session_id}")
async def change(session_id: SessionId, body: SessionChange, client: Client) -> Session:
    """Replace the labels, or set how long the session may be idle."""
    ttl = None if body.ttl_seconds is None else timedelta(seconds=body.ttl_seconds)
    return _answer(await client.session(session_id).update(labels=body.labels, ttl=ttl, etag=body.etag))


@router.delete("/{session_id}", status_code=204)
async def delete(session_id: SessionId, client: Client) -> None:
    """Delete a session."""
    await client.session(session_id).delete()


@router.get("/{session_id}/transcript")
async def transcript(
    session_id: SessionId,
    client: Client,
    start: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    end: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> TranscriptAnswer:
    """Return what a session has read and written, from `start` to before `end`."""
    return TranscriptAnswer(**(await client.session(session_id).transcript(start, end)).to_dict())


@router.post("/{session_id}/append")
async def append(session_id: SessionId, body: TextToRead, client: Client) -> Appended:
    """Let a session read a text."""
    appended = await client.session(session_id).append(
        body.text,
        request_id=body.request_id,
        log_probability=body.logprobs is not None or None,
        top_n=body.logprobs,
    )
    details, position = appended.details, appended.session.position
    scored = Logprobs(**logprobs(details, position - len(details))) if body.logprobs is not None else None
    return Appended(session=_answer(appended.session), logprobs=scored)


@router.post("/{session_id}/cancel")
async def cancel(session_id: SessionId, client: Client) -> Session:
    """End the running turn, and wait until it is committed."""
    return _answer(await client.session(session_id).cancel())


@router.post("/{session_id}/fork", status_code=201)
async def fork(session_id: SessionId, body: Fork, client: Client) -> SessionList:
    """Create sessions that are what this one was at a position."""
    forks = await client.session(session_id).fork(body.position, count=body.count)
    return SessionList(data=[_answer(each.info) for each in forks], has_more=False)


@router.post("/{session_id}/rewind")
async def rewind(session_id: SessionId, body: Rewind, client: Client) -> Session:
    """Return a session to what it was at a position, and delete what came after."""
    return _answer(await client.session(session_id).rewind(body.position, etag=body.etag))


@router.get(
    "/{session_id}/export", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}}
)
async def save(session_id: SessionId, client: Client) -> Response:
    """Return a session as a snapshot, for the import of a server with the same model and key."""
    snapshot = await client.session(session_id).export()
    return Response(snapshot, media_type="application/octet-stream")


@router.get("/{session_id}/replay", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def replay(session_id: SessionId, request: Request, client: Client) -> Response:
    """Let the server rerun every turn; an event for each says whether text and state came out equal."""
    return await EventStream.begin(request, _replayed(client.session(session_id)))


async def _replayed(session: AsyncSession) -> AsyncGenerator[bytes, None]:
    async with aclosing(session.replay()) as turns:  # type: ignore[type-var] # it is a generator
        async for turn in turns:
            yield event({**turn.to_dict(), "is_equal": turn.is_equal})
    yield DONE


def _answer(info: SessionInfo) -> Session:
    return Session(**info.to_dict())
