"""One turn's text as it is generated."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from elman_client._aio.transport import AsyncStream
from elman_client._errors import ElmanError
from elman_client._shared.base import BaseGeneration
from elman_client._shared.leaving import Left
from elman_client._shared.turn import Turn
from elman_client._types import Chunk, Event, Finished

OpenStream = Callable[[], Awaitable[AsyncStream[tuple[Event, ...]]]]
"""Begins the turn, or continues it."""

Leave = Callable[[Left, AsyncStream[tuple[Event, ...]] | None], None]
"""Ends a turn that its caller left, and its stream."""


class AsyncGeneration(BaseGeneration):
    """The text of a turn, piece by piece: iterate over it.

    Nothing is sent before the first piece is asked for; a ``timeout`` counts from there. Leaving early (``aclose``,
    the end of an ``async with``, a cancelled task, or dropping the object) ends the turn: the session keeps exactly
    the text that you have. A ``break`` alone only pauses: iterate again to continue.

    If the server or the network is lost, the turn continues as soon as it is back, for at most the client's
    ``retry_seconds`` from the moment that the loss is noticed: what is read is one uninterrupted text.
    """

    def __init__(self, turn: Turn, open_stream: OpenStream, leave: Leave) -> None:
        super().__init__(turn)
        self._open_stream = open_stream
        self._leave = leave
        self._stream: AsyncStream[tuple[Event, ...]] | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        turn = self._turn
        while (event := await self._read()) is not None:
            text = event.text if isinstance(event, Chunk) else None
            if turn.is_left:
                break
            turn.taken = event  # see Turn: no call between here and the return
            if text is not None:
                return text
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[Event]:
        """Iterate over what is left of the turn as Started, Chunks and Finished."""
        turn = self._turn
        while (event := await self._read()) is not None:
            if turn.is_left:
                return
            turn.taken = event
            yield event

    async def aclose(self) -> None:
        """End the turn here. The session keeps the text that you have."""
        self._close()

    def _close(self) -> None:
        if self._turn.leave():
            self._leave(self._turn.left, self._stream)
            self._turn.is_reported = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def __del__(self) -> None:
        self._close()

    async def _read(self) -> Event | None:
        while True:
            try:
                if (event := self._turn.next_event()) is not None:
                    if isinstance(event, Finished):
                        await self._finish_stream()
                    return event
                if self._turn.is_over:
                    return None
                if self._stream is None:
                    self._stream = await self._open_stream()
                    if self._turn.is_left:  # by a task that found no stream: this one must not begin
                        self._drop_stream()
                        return None
                self._turn.receive(await self._stream.read())
            except BaseException as error:
                if self._turn.is_over and isinstance(error, ElmanError):
                    return None  # another task closed it: the iteration just ends
                delay = self._turn.delay(error)
                if delay is None:
                    self._turn.fail(error)
                    self._close()
                    raise
                self._drop_stream()
                await asyncio.sleep(delay)

    async def _finish_stream(self) -> None:
        """Read the status that follows the last event, or the call would count as cancelled."""
        if self._stream is not None:
            with contextlib.suppress(ElmanError):  # a server that goes now has said all
                await self._stream.read()

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
