"""Turns in, characters out, on one stream."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, Unpack

from elman_client._aio.transport import AsyncTalk
from elman_client._shared import turns
from elman_client._types import Event, GenerateOptions


class AsyncChat:
    """A conversation on one stream: say something, and read what follows; say more whenever you like.

    What is said while a turn runs ends that turn, which is then Finished as CANCELLED. A stream that
    is lost is an error: take the turn again with ``Session.resume`` or ``generate``, which go on by
    themselves.
    """

    def __init__(self, talk: AsyncTalk[Event], session: str) -> None:
        self._talk = talk
        self._session = session

    async def say(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> None:
        """Begin a turn; see :class:`GenerateOptions`. Its ``timeout`` is the chat's."""
        await self._talk.send(turns.said(prompt, options, self._session))

    async def stop(self) -> None:
        """End the running turn, if any. What was handed out stays in the session's memory."""
        await self._talk.send(turns.STOP)

    async def end(self) -> None:
        """Say that no more will be said; the running turn comes to its end."""
        await self._talk.end()

    async def events(self) -> AsyncIterator[Event]:
        """Iterate over the events of all turns: for each Started, Chunks and Finished."""
        while (event := await self._talk.read()) is not None:
            yield event

    async def aclose(self) -> None:
        """Leave the chat; the running turn ends where it is."""
        self._talk.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
