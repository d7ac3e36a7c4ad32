"""The texts of one request, as they are generated: one or several, on a session or not, from a start or continued."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

from elman_client import (
    AsyncClient,
    AsyncGeneration,
    AsyncSession,
    CharacterDetail,
    Finished,
    InvalidArgumentError,
    Started,
    TurnNotFoundError,
)
from elman_web.dialect.requests import NEW_SESSION, Generation
from elman_web.dialect.resumption import TextId, TurnId, digest_of, text_id, turn_id

_SEED_BITS: Final = 53  # what every JSON library reads without loss
_NUM_AHEAD: Final = 16  # pieces that wait for a slow reader, of all choices together


@dataclass(frozen=True)
class Piece:
    """What happened to one choice: it started, has more text, or finished.

    Attributes:
        index: Of the choice.
        event_id: What its reader sends to continue after it.
        text: More of the text.
        details: One a character, if asked for.
        position: The session's after it; without a session the text's.
        started: The first piece of a choice has it.
        finished: The last one has it.
    """

    index: int
    event_id: str
    text: str = ""
    details: tuple[CharacterDetail, ...] = ()
    position: int = 0
    started: Started | None = None
    finished: Finished | None = None


async def session_of(client: AsyncClient, request: Generation, last_event_id: str) -> AsyncSession | None:
    """Return the session that a request is about; a new one if it asks for that.

    Raises:
        InvalidArgumentError: It is of another model.
        ElmanError: There is no such session, or the server cannot be reached.
    """
    if request.session is None:
        return None
    if last_event_id:
        return await client.get_session(turn_id(last_event_id, request).session)
    if request.session == NEW_SESSION:
        return await client.create_session(request.model, seed=secrets.randbits(_SEED_BITS))
    session = await client.get_session(request.session)
    model = session.info.model
    if request.model.removeprefix("models/") not in {model.split("/")[1], model.removeprefix("models/")}:
        message = f"{session.name} is of {model}, not of {request.model!r}"
        raise InvalidArgumentError(message, reason="OTHER_MODEL")
    return session


def pieces(
    client: AsyncClient, request: Generation, prompts: Sequence[str], session: AsyncSession | None, last_event_id: str
) -> AsyncGenerator[Piece, None]:
    """Return the pieces of all choices, those of one in order; raises ElmanError in between."""
    if session is not None:
        return _turn(session, request, prompts[0], last_event_id)
    num_each = request.n or 1
    if last_event_id:
        known = text_id(last_event_id, request, len(prompts) * num_each)
    else:
        seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed
        known = TextId(seed, digest_of(request), (0,) * (len(prompts) * num_each))
    texts = [
        _text(client, request, prompts[index // num_each], known, index=index, choice=index % num_each)
        for index in range(len(known.counts))
    ]
    return _numbered(_merged(texts), known)


async def _text(
    client: AsyncClient, request: Generation, prompt: str, known: TextId, *, index: int, choice: int
) -> AsyncGenerator[Piece, None]:
    """Generate a text that nobody keeps; what its reader knows already is generated and left out."""
    options = request.options((known.seed + choice) % 2**64)
    skip = known.counts[index]
    if skip:
        options["chunk_chars"] = 1  # no chunk lies on both sides of what is known
    async with client.generate(prompt, model=request.model, **options) as generation:
        async for piece in _follow(generation, index):
            if len(piece.text) <= skip and piece.text:
                skip -= len(piece.text)
            elif skip and piece.text:
                yield replace(piece, text=piece.text[skip:], details=piece.details[skip:])
                skip = 0
            else:
                yield piece


async def _turn(
    session: AsyncSession, request: Generation, prompt: str, last_event_id: str
) -> AsyncGenerator[Piece, None]:
    """Run a session's turn, or continue it."""
    name = session.name.removeprefix("sessions/")
    known = TurnId(request.request_id or str(uuid4()), name, None)
    if last_event_id:
        known = turn_id(last_event_id, request)
        try:
            async for piece in _on_turn(session.resume(known.request_id, known.position), known):
                yield piece
        except TurnNotFoundError:
            if known.position is not None:
                raise  # its reader has text of it: it is another session now
        else:
            return
    options = request.options(request.seed)
    options["request_id"] = known.request_id
    async for piece in _on_turn(session.generate(prompt, **options), known):
        yield piece


async def _on_turn(generation: AsyncGeneration, known: TurnId) -> AsyncGenerator[Piece, None]:
    async with generation:
        async for piece in _follow(generation, 0):
            if piece.text:
                known = replace(known, position=piece.position)
            yield replace(piece, event_id=str(known))


async def _follow(generation: AsyncGeneration, index: int) -> AsyncGenerator[Piece, None]:
    async for event in generation.events():
        if isinstance(event, Started):
            position = event.start_position + event.prompt_chars
            yield Piece(index, "", position=position, started=event)
        elif isinstance(event, Finished):
            yield Piece(index, "", position=event.position, finished=event)
        else:
            yield Piece(index, "", event.text, event.details, event.position)


async def _numbered(source: AsyncGenerator[Piece, None], known: TextId) -> AsyncGenerator[Piece, None]:
    counts = list(known.counts)
    async with aclosing(source):
        async for piece in source:
            counts[piece.index] += len(piece.text)
            yield replace(piece, event_id=str(replace(known, counts=tuple(counts))))


async def _merged(sources: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[Piece, None]:
    """Iterate over the pieces of several texts as they come; a slow reader slows all of them."""
    if len(sources) == 1:
        async with aclosing(sources[0]):
            async for piece in sources[0]:
                yield piece
        return
    queue: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue(_NUM_AHEAD)

    async def pump(source: AsyncGenerator[Piece, None]) -> None:
        try:
            async with aclosing(source):
                async for piece in source:
                    await queue.put(piece)
        except Exception as error:  # noqa: BLE001 - raised again where the pieces are read
            await queue.put(error)
        await queue.put(None)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        num_running = len(tasks)
        while num_running:
            came = await queue.get()
            if came is None:
                num_running -= 1
            elif isinstance(came, BaseException):
                raise came
            else:
                yield came
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
