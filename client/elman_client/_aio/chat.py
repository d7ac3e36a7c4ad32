"""Turns in, characters out, on one stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, Unpack

from elman_client._aio.generation import Leave
from elman_client._aio.transport import AsyncTalk
from elman_client._errors import ElmanError
from elman_client._shared import turns
from elman_client._shared.talking import Talking
from elman_client._types import Event, GenerateOptions

OpenStream = Callable[[], Awaitable[AsyncTalk[tuple[Event, ...]]]]
"""Opens the chat's stream."""


class AsyncChat:
    """A conversation on one stream: say something, and read what follows; say more whenever you like.

    What is said while a turn runs ends that turn, which is then Finished as CANCELLED. A stream that is lost is an
    error: rerun the turn with ``Session.resume`` or ``generate``, which continue by themselves. The chat's ``timeout``
    counts from the first call that sends or reads.
    """

    def __init__(self, session: str, open_stream: OpenStream, leave: Leave) -> None:
        self._talking = Talking(session)
        self._open_stream = open_stream
        self._opening = asyncio.Lock()
        self._leave = leave
        self._talk: AsyncTalk[tuple[Event, ...]] | None = None

    async def say(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> None:
        """Begin a turn; see :class:`GenerateOptions`. Its ``timeout`` is the chat's."""
        message = self._talking.say(prompt, options)
        (await self._opened()).send(message)

    async def stop(self) -> None:
        """End the running turn, if any. What was delivered stays in the session."""
        (await self._opened()).send(turns.STOP)

    async def end(self) -> None:
        """Say that no more will be said; the running turn finishes."""
        (await self._opened()).end()

    async def events(self) -> AsyncIterator[Event]:
        """Iterate over the events of all turns: for each Started, Chunks and Finished."""
        while (event := await self._read()) is not None:
            if self._talking.is_left:
                return
            self._talking.taken = event
            yield event

    async def aclose(self) -> None:
        """Leave the chat; the running turn ends here. The session keeps the text that you have."""
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

    async def _opened(self) -> AsyncTalk[tuple[Event, ...]]:
        self._talking.check_open()
        async with self._opening:
            if self._talk is None:
                self._talk = await self._open_stream()
            if self._talking.is_left:  # by a task that found no stream: this one must not begin
                self._talk.cancel()
            self._talking.check_open()
            return self._talk

    async def _read(self) -> Event | None:
        while not self._talking.is_left:
            if (event := self._talking.next_event()) is not None:
                return event
            try:
                answer = await (await self._opened()).read()
            except ElmanError:
                if self._talking.is_left:  # another task closed it: the iteration just ends
                    break
                raise
            if answer is None:
                break
            self._talking.receive(answer)
        return None

    def _close(self) -> None:
        if self._talking.is_reported:
            return
        self._talking.is_left = True
        if self._talk is not None:
            if self._talking.is_running:
                self._leave(self._talking.left, self._talk)
            else:
                self._talk.cancel()
        self._talking.is_reported = True
