"""One turn's text as it is drawn."""

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from elman_client._errors import ElmanError
from elman_client._shared.base import BaseGeneration
from elman_client._shared.turn import Turn, TurnState
from elman_client._sync.transport import Stream
from elman_client._types import Chunk, Event, Finished


class Generation(BaseGeneration):
    """The text of a turn, piece by piece: iterate over it.

    Nothing is sent before the first piece is asked for. Leaving early (``close``, the end of a
    ``with``, or forgetting the object) cancels the call and frees the session. A ``break`` alone
    only pauses: iterate again to go on.

    If the server or the way to it is lost, the turn is gone on with as soon as there is one again,
    for at most the client's ``retry_seconds``: what is read is one uninterrupted text.
    """

    def __init__(self, turn: Turn, open_stream: Callable[[], Stream[Event]]) -> None:
        super().__init__(turn)
        self._open_stream = open_stream
        self._stream: Stream[Event] | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while (event := self._read()) is not None:
            if isinstance(event, Chunk):
                return event.text
        raise StopIteration

    def events(self) -> Iterator[Event]:
        """Iterate over what is left of the turn as Started, Chunks and Finished."""
        while (event := self._read()) is not None:
            yield event

    def close(self) -> None:
        """End the turn here. What was handed out stays in the session's memory."""
        self._turn.abandon()
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _read(self) -> Event | None:
        while not self._turn.is_over:
            try:
                if self._stream is None:
                    self._turn.state = TurnState.RUNNING  # first: opening may be interrupted
                    self._stream = self._open_stream()
                event = self._turn.take(self._stream.read())
                if isinstance(event, Finished):
                    with contextlib.suppress(ElmanError):  # a server that goes now has said all
                        self._stream.read()  # the status that follows it
            except BaseException as error:
                if self._turn.is_over and isinstance(error, ElmanError):
                    return None  # another thread closed it: the iteration just ends
                delay = self._turn.delay(error)
                if delay is None:
                    self._turn.fail(error)
                    self.close()
                    raise
                self._leave_stream()
                time.sleep(delay)
                continue
            if event is not None:
                return event
        return None

    def _leave_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
