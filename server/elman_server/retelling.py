"""Retelling: what is durable of a turn that was, told again as its own stream told it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman_server.answers import read_details, replayed
from elman_server.generation import Job
from elman_server.history import memory_at
from elman_server.plans import started
from elman_server.reading import read

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elman_server.engine import AnyEngine
    from elman_server.generation import CharacterDetail, Chunk, Detail, Started
    from elman_server.past import Past
    from elman_server.sessions import Sessions


class Retelling:
    """One turn of a session, to be told again.

    Args:
        engine: of the session's model.
        past: the turn.
    """

    def __init__(self, sessions: Sessions, engine: AnyEngine, session_id: str, past: Past) -> None:
        self._sessions = sessions
        self._engine = engine
        self._session_id = session_id
        self._past = past
        self._model = sessions.model_of(past.head)

    async def events(self, known: int) -> AsyncGenerator[Started | Chunk, None]:
        """Tell how the turn began, and its durable text from a position on."""
        past, parameters = self._past, self._past.parameters
        again = past.drawn[known - past.prompt_end :]
        details = await self.details(known, again, parameters.detail)
        yield started(past.start, past.prompt_end, self._model, parameters)
        vocabulary, ends = self._model.vocabulary, (past.start, past.prompt_end)
        decoder = vocabulary.decoder(await self._sessions.unfinished(self._session_id, *ends, vocabulary))
        decoder.decode(past.drawn[: known - past.prompt_end])
        for chunk in replayed(again, known, details, decoder, chunk_chars=parameters.chunk_chars):
            yield chunk

    async def details(self, position: int, ids: list[int], detail: Detail) -> tuple[CharacterDetail, ...]:
        """Return how likely ids were that stand at a position: read again, they tell the same."""
        if not detail or not ids:
            return ()
        past = self._past
        num_segments = past.opened.num_segments if past.opened else past.head.num_segments
        segments = await self._sessions.segments(self._session_id, 0, num_segments)
        memory = await memory_at(self._engine, self._model.start(past.head.initial_state), segments, position)
        job = Job(memory, position, ids, detail=detail)
        return read_details(job, await read(self._engine, job), self._model)
