"""One turn's text as it is generated."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from elman_client._errors import ElmanError
from elman_client._shared.base import BaseGeneration
from elman_client._shared.leaving import Left
from elman_client._shared.turn import Turn
from elman_client._sync.transport import Stream
from elman_client._types import Chunk, Event, Finished

OpenStream = Callable[[], Stream[tuple[Event, ...]]]
"""Begins the turn, or continues it."""

Leave = Callable[[Left, Stream[tuple[Event, ...]] | None], None]
"""Ends a turn that its caller left, and its stream."""


def _nothing() -> None: ...


class TurnRun:
    """A turn and the stream that carries it. It outlives a generation that is dropped, and ends the turn then.

    Attributes:
        on_finished: Called when nothing of it is left to close.
    """

    def __init__(self, turn: Turn, open_stream: OpenStream, leave: Leave) -> None:
        self.turn = turn
        self._open_stream = open_stream
        self._leave = leave
        self._stream: Stream[tuple[Event, ...]] | None = None
        self.on_finished: Callable[[], None] = _nothing

    @property
    def is_left(self) -> bool:
        """Whether its caller has left it."""
        return self.turn.is_left

    def read(self) -> Event | None:
        """Return the event after the one that was taken; ``None``: there is none."""
        while True:
            try:
                if (event := self.turn.next_event()) is not None:
                    if isinstance(event, Finished):
                        self._finish()
                    return event
                if self.turn.is_over:
                    return None
                if self._stream is None:
                    self._stream = self._open_stream()
                    if self.turn.is_left:  # by a thread that found no stream: this one must not begin
                        self._drop_stream()
                        return None
                self.turn.receive(self._stream.read())
            except BaseException as error:
                if self.turn.is_over and isinstance(error, ElmanError):
                    return None  # another thread closed it: the iteration just ends
                delay = self.turn.delay(error)
                if delay is None:
                    self.turn.fail(error)
                    self.close()
                    raise
                self._drop_stream()
                time.sleep(delay)

    def close(self) -> None:
        """End the turn here."""
        if self.turn.leave():
            self._leave(self.turn.left, self._stream)
            self.turn.is_reported = True  # last: an interrupted close is done again

    def _finish(self) -> None:
        if self._stream is not None:
            self._stream.finish()
        self.on_finished()

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


class Generation(BaseGeneration):
    """The text of a turn, piece by piece: iterate over it.

    Nothing is sent before the first piece is asked for; a ``timeout`` counts from there. Leaving early (``close``,
    the end of a ``with``, Ctrl-C while it waits, or dropping the object) ends the turn: the session keeps exactly the
    text that you have. A ``break`` alone only pauses: iterate again to continue.

    If the server or the network is lost, the turn continues as soon as it is back, for at most the client's
    ``retry_seconds`` from the moment that the loss is noticed: what is read is one uninterrupted text.
    """

    def __init__(self, run: TurnRun) -> None:
        super().__init__(run.turn)
        self._run = run

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        turn = self._turn
        while (event := self._run.read()) is not None:
            text = event.text if isinstance(event, Chunk) else None
            if turn.is_left:
                break
            turn.taken = event  # see Turn: no call between here and the return
            if text is not None:
                return text
        raise StopIteration

    def events(self) -> Iterator[Event]:
        """Iterate over what is left of the turn as Started, Chunks and Finished."""
        turn = self._turn
        while (event := self._run.read()) is not None:
            if turn.is_left:
                return
            turn.taken = event
            yield event

    def close(self) -> None:
        """End the turn here. The session keeps the text that you have."""
        self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
