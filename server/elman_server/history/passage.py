"""Passages: what a network reads again for a range of a text, or of a transcript."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.requests import check_text
from elman_server.engine.job import Job
from elman_server.sessions.service import check_position

if TYPE_CHECKING:
    from elman_server.domain.inspection import Source
    from elman_server.domain.state import SessionState
    from elman_server.engine.inspection import Ask
    from elman_server.models.registry import ModelInfo, Models
    from elman_server.sessions.service import Sessions


@dataclass(frozen=True, slots=True)
class Passage:
    """A range of positions, and what is read for it.

    Attributes:
        state: where reading starts.
        position: of that state: above 0 it has a pending character.
        ids: from there to the end of the range.
        skipped: how many of them come before the range.
        start: the first position of the range.
    """

    model: ModelInfo
    state: SessionState
    position: int
    ids: list[int]
    skipped: int
    start: int

    @property
    def shown(self) -> list[int]:
        """The ids of the range."""
        return self.ids[self.skipped :]

    def job(self, ask: Ask, window: int = 1) -> Job:
        """Return the engine's part."""
        return Job(self.state, self.position, self.ids, window=window, inspect=ask)


async def passage_of(sessions: Sessions, models: Models, source: Source, start: int | None, end: int | None) -> Passage:
    """Return what to read for a range; `start` None: only the last position, `end` None: to the end.

    Raises:
        InvalidFieldError: there is no text, or more than a prompt may have.
        PositionOutOfRangeError: the range is not in the text.
    """
    target = source.target
    if target.session is None:
        assert target.model is not None
        model = models.get(target.model, target.version)
        if not source.text:
            raise InvalidFieldError("text", "is empty; send at least one character, or name a session")
        state, position = model.initial, 0
    else:
        head = (await sessions.load(target.session)).head
        model, state, position = sessions.model_of(head), head.state, head.position
        if not source.text:
            return await _of_transcript(sessions, target.session, start, end)
    check_text("text", source.text, model.limits, empty=False)
    ids = model.vocabulary.encode(source.text, "text", source.unknown)
    first, last = _range(start, end, len(ids))
    return Passage(model, state, position, ids[:last], first, first)


async def _of_transcript(sessions: Sessions, session_id: str, start: int | None, end: int | None) -> Passage:
    """Return what to read of a transcript: from the nearest stored state on."""
    head, segments = await sessions.read(session_id)
    model = sessions.model_of(head)
    first, last = _range(start, end, head.position)
    most = model.limits.max_prompt_chars
    if last - first > most:
        raise InvalidFieldError("end", f"is {last - first} characters after start; at most {most} are allowed")
    state, at = model.start(head.initial_state), 0
    for segment in segments:
        if segment.state is not None and segment.end <= first:
            state, at = segment.state, segment.end
    ids: list[int] = []
    for segment in segments:
        if segment.end > at and segment.start < last:
            ids += segment.ids[max(0, at - segment.start) : last - segment.start]
    return Passage(model, state, at, ids, first - at, first)


def _range(start: int | None, end: int | None, length: int) -> tuple[int, int]:
    if start is None:
        if not length:
            raise InvalidFieldError("text", "is empty and nothing was read before; send at least one character")
        return length - 1, length
    last = length if end is None else end
    check_position("end", last, 0, length)
    check_position("start", start, 0, last)
    return start, last
