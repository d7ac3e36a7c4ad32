"""One turn's text as it is drawn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from elman_client._aio.transport import AsyncStream
from elman_client._errors import ElmanError
from elman_client._shared.base import BaseGeneration
from elman_client._shared.turn import Turn, TurnState
from elman_client._types import Chunk, Event, Finished


class AsyncGeneration(BaseGeneration):
    """The text of a turn, piece by piece: iterate over it.

    Nothing is sent before the first piece is asked for. Leaving early (``aclose``, the end of an
    ``async with``, or forgetting the object) cancels the call and frees the session. A ``break``
    alone only pauses: iterate again to go on.

    If the server or the way to it is lost, the turn is gone on with as soon as there is one again,
    for at most the client's ``retry_seconds``: what is read is one uninterrupted text.
    """

    def __init__(self, turn: Turn, open_stream: Callable[[], Awaitable[AsyncStream[Event]]]) -> None:
        super().__init__(turn)
        self._open_stream = open_stream
        self._stream: AsyncStream[Event] | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while (event := await self._read()) is not None:
            if isinstance(event, Chunk):
                return event.text
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[Event]:
        """Iterate over what is left of the turn as Started, Chunks and Finished."""
        while (event := await self._read()) is not None:
            yield event

    async def aclose(self) -> None:
        """End the turn here. What was handed out stays in the session's memory."""
        self._close()

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

    def _close(self) -> None:
        self._turn.abandon()
        if self._stream is not None:
            self._stream.cancel()

    async def _read(self) -> Event | None:
        while not self._turn.is_over:
            try:
                if self._stream is None:
                    self._turn.state = TurnState.RUNNING  # first: opening may be interrupted
                    self._stream = await self._open_stream()
                event = self._turn.take(await self._stream.read())
                if isinstance(event, Finished):
                    with contextlib.suppress(ElmanError):  # a server that goes now has said all
                        await self._stream.read()  # the status that follows it
            except BaseException as error:
                if self._turn.is_over and isinstance(error, ElmanError):
                    return None  # another task closed it: the iteration just ends
                delay = self._turn.delay(error)
                if delay is None:
                    self._turn.fail(error)
                    self._close()
                    raise
                self._leave_stream()
                await asyncio.sleep(delay)
                continue
            if event is not None:
                return event
        return None

    def _leave_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
