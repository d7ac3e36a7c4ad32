"""A session on the server."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Unpack

from elman_client._shared import inspection, sessions, turns
from elman_client._shared.base import BaseSession
from elman_client._shared.leaving import cancel
from elman_client._shared.retrying import Attempts
from elman_client._shared.turn import Turn
from elman_client._sync.chat import Chat, ChatRun
from elman_client._sync.generation import Generation, TurnRun
from elman_client._sync.transport import Stream, Talk, Transport
from elman_client._types import (
    Appended,
    Event,
    ExplainedStep,
    FoundUnits,
    GenerateOptions,
    ReplayedTurn,
    Score,
    SessionInfo,
    StateChunk,
    TextProperty,
    Transcript,
    Units,
    UnknownPolicy,
)


class Session(BaseSession):
    """A recurrent network's state, kept by the server.

    Every method takes ``timeout`` in seconds (default: the client's) and raises
    :class:`ElmanError`. After a generation was left early, the next call first waits until the
    server has committed it.
    """

    def __init__(self, transport: Transport, name: str, info: SessionInfo | None = None) -> None:
        super().__init__(name, info)
        self._transport = transport

    def refresh(self, *, timeout: float | None = None) -> SessionInfo:
        """Read the session. This does not postpone its expiry."""
        self._info = self._transport.run(sessions.get(self.name), timeout)
        return self._info

    def generate(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> Generation:
        """Read ``prompt`` and generate the text that follows; see :class:`GenerateOptions`."""
        return self._generation(turns.Asked(prompt, options, session=self.name), options.get("timeout"))

    def resume(self, request_id: str, position: int | None = None, *, timeout: float | None = None) -> Generation:
        """Continue a turn that was begun with that ``request_id``, after ``position``.

        The text is what the turn's own stream gave, or would have given, after that position: the
        ``position`` of the last chunk that you have; ``None``: you have none. This takes the
        turn over: a stream that still has it ends.
        """
        return self._generation(turns.Resumed(self.name, request_id, position), timeout)

    def chat(self, *, timeout: float | None = None) -> Chat:
        """Open a stream of turns, where a new turn or a stop ends the running one."""
        attempts = Attempts(self._transport.connection, timeout, is_safe=False)

        def open_stream() -> Talk[tuple[Event, ...]]:
            attempts.begin()
            self._transport.settle(self.name, attempts.time_left)
            return self._transport.talk(turns.talk(self.name), attempts.time_left)

        chat = Chat(run := ChatRun(self.name, open_stream, self._transport.leave))
        self._transport.close_with(chat, self.name, run)
        return chat

    def append(
        self,
        text: str,
        *,
        etag: str | None = None,
        request_id: str | None = None,
        log_probability: bool | None = None,
        top_n: int | None = None,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> Appended:
        """Read ``text`` and generate nothing; a text that is sent again with its ``request_id`` is read once."""
        operation = turns.append(
            self.name,
            text,
            etag=etag,
            request_id=request_id,
            log_probability=log_probability,
            top_n=top_n,
            unknown_characters=unknown_characters,
        )
        appended = self._transport.run(operation, timeout)
        self._info = appended.session
        return appended

    def score(
        self,
        text: str,
        *,
        top_n: int | None = None,
        read_out: str | None = None,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> Score:
        """Return how likely ``text`` is after the session's state, which does not change.

        ``read_out`` is as in the client's ``score``.
        """
        operation = turns.score(
            text, top_n=top_n, read_out=read_out, unknown_characters=unknown_characters, session=self.name
        )
        return self._transport.run(operation, timeout)

    def cancel(self, *, timeout: float | None = None) -> SessionInfo:
        """End the running turn, anyone's, and wait until it is committed."""
        self._info = self._transport.run(cancel(self.name), timeout)
        return self._info

    def transcript(self, start: int = 0, end: int | None = None, *, timeout: float | None = None) -> Transcript:
        """Return the text of positions ``[start, end)``; ``None``: to its end."""
        return self._transport.run(sessions.transcript(self.name, start, end), timeout)

    def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        expire_time: datetime | None = None,
        etag: str | None = None,
        timeout: float | None = None,
    ) -> SessionInfo:
        """Replace the labels, or set when the session expires: after it was idle for ``ttl``, or at ``expire_time``."""
        operation = sessions.update(self.name, labels, ttl, expire_time, etag)
        self._info = self._transport.run(operation, timeout)
        return self._info

    def delete(self, *, etag: str | None = None, timeout: float | None = None) -> None:
        """Delete the session. A turn that is running on it ends with NotFoundError."""
        self._transport.run(sessions.delete(self.name, etag), timeout)

    def fork(
        self, position: int | None = None, *, count: int = 1, timeout: float | None = None
    ) -> tuple["Session", ...]:
        """Return new sessions that are what this one was at ``position``; ``None``: as it is now."""
        infos = self._transport.run(sessions.fork(self.name, position, count), timeout)
        return tuple(Session(self._transport, info.name, info) for info in infos)

    def rewind(self, position: int, *, etag: str | None = None, timeout: float | None = None) -> SessionInfo:
        """Return the session to what it was at ``position``, and delete what came after."""
        self._info = self._transport.run(sessions.rewind(self.name, position, etag), timeout)
        return self._info

    def export(self, *, timeout: float | None = None) -> bytes:
        """Return the session as a snapshot for ``import_session`` of a server with the same model and key."""
        pieces = self._transport.gather(sessions.export(self.name), timeout)
        return b"".join(pieces)

    def replay(self, *, timeout: float | None = None) -> Iterator[ReplayedTurn]:
        """Let the server rerun every turn, and iterate over the results, up to the first difference."""
        yield from self._transport.follow(sessions.replay(self.name), timeout)

    def watch(
        self,
        text: str | None = None,
        *,
        units: Sequence[Units] = (),
        start: int = 0,
        end: int | None = None,
        num_changed: int = 0,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> Iterator[StateChunk]:
        """Let the server read ``text``, or the transcript again, and iterate over the values of units.

        Args:
            text: Read after the session's state, which does not change; ``None``: the transcript.
            units: Which units to show, as in ``[Units(Signal.H, 0)]``; at most 8192 in all.
            start: The first position to show.
            end: One past the last one; ``None``: to the end.
            num_changed: Add for each character the units of h and c that changed most, 0 to 64.
            unknown_characters: What to do with characters of the text outside the vocabulary.
            timeout: Seconds for this call.
        """
        operation = inspection.watch(
            text,
            units=units,
            start=start,
            end=end,
            num_changed=num_changed,
            unknown_characters=unknown_characters,
            session=self.name,
        )
        yield from self._transport.follow(operation, timeout)

    def explain(
        self,
        text: str | None = None,
        *,
        position: int | None = None,
        temperature: float | None = None,
        num_candidates: int = 5,
        num_contributions: int = 10,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> ExplainedStep:
        """Return every term of the step that reads one character of ``text``, or of the transcript.

        Args:
            text: Read after the session's state, which does not change; ``None``: the transcript.
            position: The character's; ``None``: the last one.
            temperature: Divides the logits before the softmax; default 1.
            num_candidates: For how many of the likeliest next characters to return contributions, 0 to 20.
            num_contributions: How many units to return for each of them, 0 to 64.
            unknown_characters: What to do with characters of the text outside the vocabulary.
            timeout: Seconds for this call.
        """
        operation = inspection.explain(
            text,
            position=position,
            temperature=temperature,
            num_candidates=num_candidates,
            num_contributions=num_contributions,
            unknown_characters=unknown_characters,
            session=self.name,
        )
        return self._transport.run(operation, timeout)

    def find_units(
        self,
        text: str | None = None,
        *,
        pattern: str | None = None,
        text_property: TextProperty | None = None,
        positions: Iterable[int] | None = None,
        start: int = 0,
        end: int | None = None,
        num_units: int = 10,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> FoundUnits:
        """Return the units of the state that follow a labelling of ``text``, or of the transcript, best.

        Args:
            text: Read after the session's state, which does not change; ``None``: the transcript.
            pattern: A regular expression (RE2): what it matches is labelled 1, the rest 0.
            text_property: Or a property that is computed from the text.
            positions: Or the positions that are labelled 1.
            start: The first position that counts.
            end: One past the last one; ``None``: to the end.
            num_units: How many units to return, 1 to 100.
            unknown_characters: What to do with characters of the text outside the vocabulary.
            timeout: Seconds for this call.
        """
        operation = inspection.find_units(
            text,
            pattern=pattern,
            text_property=text_property,
            positions=positions,
            start=start,
            end=end,
            num_units=num_units,
            unknown_characters=unknown_characters,
            session=self.name,
        )
        return self._transport.run(operation, timeout)

    def _generation(self, asked: turns.Asked, timeout: float | None) -> Generation:
        turn = Turn(asked, Attempts(self._transport.connection, timeout, is_safe=True))

        def open_stream() -> Stream[tuple[Event, ...]]:
            turn.begin()
            self._transport.settle(self.name, turn.time_left)
            return self._transport.open(turn.operation(), turn.time_left)

        generation = Generation(run := TurnRun(turn, open_stream, self._transport.leave))
        run.on_finished = self._transport.close_with(generation, self.name, run)
        return generation
