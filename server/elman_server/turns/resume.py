"""Past turns: found by their request id, delivered again or continued, and never run twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import InvalidFieldError, SessionBusyError
from elman_server.domain.events import Finished, FinishReason
from elman_server.domain.requests import MAX_WINDOW
from elman_server.engine.job import Job, StopMatcher
from elman_server.engine.prefill import read
from elman_server.history.service import state_at
from elman_server.sessions.repository import Loaded, etag_of
from elman_server.sessions.service import check_position
from elman_server.sessions.session import turns_of
from elman_server.sessions.transitions import KEY_BYTES, OLD_KEY_BYTES, key_of
from elman_server.turns.output import TextDetails, replayed
from elman_server.turns.planning import started

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from elman_server.domain.events import CharacterDetail, Chunk, Started
    from elman_server.domain.requests import Detail
    from elman_server.engine import AnyEngine
    from elman_server.sessions.records import Head, OpenTurn, Parameters
    from elman_server.sessions.service import Sessions

COMPLETE: Final = frozenset({FinishReason.MAX_CHARS, FinishReason.STOP_STRING})  # the ends that were asked for


@dataclass(frozen=True, slots=True)
class EarlierTurn:
    """A turn as far as it is durable.

    Attributes:
        head: of its session.
        opened: the turn, if it is not committed.
        parameters, start, prompt_end, end: of it.
        sampled: the durable ids from `prompt_end` on.
        is_last: whether no other turn came after it, so that it can continue.
        reason, stop_string, state_digest: how it ended, if it did.
    """

    head: Head
    opened: OpenTurn | None
    parameters: Parameters
    start: int
    prompt_end: int
    end: int
    sampled: list[int]
    is_last: bool
    reason: FinishReason | None = None
    stop_string: str = ""
    state_digest: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether it reached the end that was asked for."""
        return self.reason in COMPLETE

    @property
    def can_continue(self) -> bool:
        """Whether it can be brought to its end."""
        return self.is_last and not self.is_complete

    def known(self, position: int | None) -> int:
        """Return up to where a caller has the turn who says a position, or None; raises PositionOutOfRangeError."""
        known = self.prompt_end if position is None else position
        end = self.prompt_end + self.parameters.max_chars if self.can_continue else self.end
        check_position("position", known, self.prompt_end, end)
        return known

    def check(self, request: bytes) -> None:
        """Refuse another request under the same id; `request` is its digest."""
        if request != self.parameters.request:
            raise InvalidFieldError("request_id", "was used for another request on this session; choose a new one")

    def finished(self) -> Finished:
        """Return the last event of a turn that is over; the etag is the session's present one."""
        return Finished(
            reason=self.reason or FinishReason.CANCELLED,
            prompt_chars=self.prompt_end - self.start,
            generated_chars=self.end - self.prompt_end,
            position=self.end,
            state_digest=self.state_digest,
            etag=etag_of(self.head),
            stop_string=self.stop_string,
        )

    def end_reached(self, stops: Sequence[Sequence[int]]) -> tuple[FinishReason, int] | None:
        """Return how the turn ended if all of its text is durable but not its end; with the stop string's index."""
        longest = max(map(len, stops), default=0)
        matcher, stop = StopMatcher(stops), None
        for character in self.sampled[-longest:] if longest else []:
            stop = matcher.push(character)
        if stop is not None and self.parameters.include_stop:
            return FinishReason.STOP_STRING, stop
        return (FinishReason.MAX_CHARS, -1) if len(self.sampled) >= self.parameters.max_chars else None


class Redelivery:
    """One turn of a session, to be delivered again.

    Args:
        engine: of the session's model.
        past: the turn.
    """

    def __init__(self, sessions: Sessions, engine: AnyEngine, session_id: str, past: EarlierTurn) -> None:
        self._sessions = sessions
        self._engine = engine
        self._session_id = session_id
        self._past = past
        self._model = sessions.model_of(past.head)

    async def events(self, known: int) -> AsyncGenerator[Started | Chunk, None]:
        """Send how the turn began, and its durable text from a position on."""
        past, parameters = self._past, self._past.parameters
        again = past.sampled[known - past.prompt_end :]
        details = await self.details(known, again, parameters.detail)
        yield started(past.start, past.prompt_end, self._model, parameters)
        vocabulary, ends = self._model.vocabulary, (past.start, past.prompt_end)
        decoder = vocabulary.decoder(await self._sessions.unfinished(self._session_id, *ends, vocabulary))
        decoder.decode(past.sampled[: known - past.prompt_end])
        pieces = replayed(again, known, details, decoder, chunk_chars=parameters.chunk_chars, detail=parameters.detail)
        for chunk in pieces:
            yield chunk

    async def details(self, position: int, ids: list[int], detail: Detail) -> Iterable[CharacterDetail]:
        """Return how likely the ids at a position were: they are read again, which gives the same numbers."""
        if not detail or not ids:
            return ()
        past = self._past
        num_segments = past.opened.num_segments if past.opened else past.head.num_segments
        segments = await self._sessions.segments(self._session_id, 0, num_segments)
        state = await state_at(self._engine, self._model.start(past.head.initial_state), segments, position)
        sampling = past.parameters.sampling
        if not detail.effective or sampling is None:
            job = Job(state, position, ids, detail=detail)
        else:
            before = [character for segment in segments for character in segment.ids][:position]
            resolved = sampling.resolve(self._model.vocabulary, 0)
            job = Job(state, position, ids, detail=detail, sampling=resolved, recent=before[-MAX_WINDOW:])
        return TextDetails(job, await read(self._engine, job), self._model)


async def find(sessions: Sessions, session_id: str, request_id: bytes) -> tuple[Loaded, EarlierTurn | None]:
    """Return a session, and the turn of it that has a request id; without one the session is idle.

    Both are of one moment: a turn that begins on this head is not one that another server has done meanwhile.

    Raises:
        SessionBusyError: another turn runs elsewhere; what is committed can be delivered all the same.
    """
    loaded = await sessions.load(session_id)
    opened, busy = loaded.head.open, None
    if opened is not None and request_id and opened.parameters.request_id == request_id:
        first = _index(loaded.head, request_id) if opened.is_continuation else loaded.head.num_segments
        return loaded, await _earlier(sessions, session_id, loaded.head, first, opened)
    if opened is not None:
        try:
            loaded = await sessions.idle(session_id)
        except SessionBusyError as error:
            busy = error
    head = loaded.head
    known = [*_keys(head, request_id), *await _older(sessions, session_id, head, request_id)] if request_id else []
    for first in known:
        turn = await _earlier(sessions, session_id, head, first, None)
        if turn.parameters.request_id == request_id:
            return loaded, turn
    if busy is not None:
        raise busy
    return loaded, None


def may_have(head: Head, request_id: bytes) -> bool:
    """Whether a session may have had a turn with a request id; only its segments show it."""
    return bool(request_id) and (bool(_keys(head, request_id)) or _is_older(head, request_id))


async def _earlier(sessions: Sessions, session_id: str, head: Head, first: int, opened: OpenTurn | None) -> EarlierTurn:
    num_segments = opened.num_segments if opened else head.num_segments
    segments = await sessions.segments(session_id, first, num_segments)
    if not segments:
        assert opened is not None
        return EarlierTurn(
            head, opened, opened.parameters, opened.start, opened.prompt_end, opened.position, [], is_last=True
        )
    turns = turns_of(segments, first)
    turn = turns[0]
    ids = [character for segment in segments if segment.start < turn.end for character in segment.ids]
    outcome = turn.outcome if opened is None else None
    return EarlierTurn(
        head=head,
        opened=opened,
        parameters=turn.parameters,
        start=turn.start,
        prompt_end=turn.prompt_end,
        end=turn.end,
        sampled=ids[turn.prompt_end - turn.start : turn.end - turn.start],
        is_last=len(turns) == 1 and head.open is opened,
        reason=outcome.reason if outcome else None,
        stop_string=outcome.stop_string if outcome else "",
        state_digest=outcome.state_digest.hex() if outcome else "",
    )


def _keys(head: Head, request_id: bytes) -> list[int]:
    """Return the first segments of the turns that may have a request id, the newest first."""
    sought = {key_of(request_id), request_id[:KEY_BYTES]}  # the second is how earlier servers stored it
    return [first for key, first in reversed(head.recent) if key in sought]


async def _older(sessions: Sessions, session_id: str, head: Head, request_id: bytes) -> list[int]:
    """Return the first segment of an older turn that has a request id; what a rewind has cut has it no more."""
    if not _is_older(head, request_id):
        return []
    turns = turns_of(await sessions.segments(session_id, 0, head.num_segments))
    return [turn.index for turn in turns if turn.parameters.request_id == request_id and turn.outcome is not None]


def _is_older(head: Head, request_id: bytes) -> bool:
    return any(_holds(head.older, key[:OLD_KEY_BYTES]) for key in (key_of(request_id), request_id))


def _holds(keys: bytes, key: bytes) -> bool:
    """Whether a key is among keys of its length that follow one another."""
    at = keys.find(key)
    while at >= 0 and at % len(key):
        at = keys.find(key, at + 1)
    return at >= 0


def _index(head: Head, request_id: bytes) -> int:
    return _keys(head, request_id)[0]
