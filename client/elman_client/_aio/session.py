"""A session on the server, at hand."""

# ruff: noqa: ASYNC109 - timeout is gRPC's deadline, which the server sees too

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Unpack

from elman_client._aio.generation import AsyncGeneration
from elman_client._aio.transport import AsyncStream, AsyncTransport
from elman_client._shared import sessions, turns
from elman_client._shared.base import BaseSession
from elman_client._shared.operation import Operation, Value
from elman_client._shared.turn import Turn
from elman_client._types import (
    Appended,
    Event,
    GenerateOptions,
    Score,
    SessionInfo,
    Transcript,
    UnknownPolicy,
)


class AsyncSession(BaseSession):
    """A recurrent network's memory, held by the server.

    Every method takes ``timeout`` in seconds (default: the client's) and raises
    :class:`ElmanError`. After a generation was left early, the next call first waits until the
    server has committed it.
    """

    def __init__(self, transport: AsyncTransport, name: str, info: SessionInfo | None = None) -> None:
        super().__init__(name, info)
        self._transport = transport

    async def refresh(self, *, timeout: float | None = None) -> SessionInfo:
        """Look at the session. This does not postpone its expiry."""
        self._info = await self._run(sessions.get(self.name), timeout)
        return self._info

    def generate(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> AsyncGeneration:
        """Read ``prompt`` and draw the text that follows; see :class:`GenerateOptions`."""
        operation = turns.generate(prompt, options, session=self.name)

        async def open_stream() -> AsyncStream[Event]:
            await self._settle(options.get("timeout"))
            return self._transport.open(operation, options.get("timeout"))

        return AsyncGeneration(Turn(self._leave_turn), open_stream)

    async def append(
        self,
        text: str,
        *,
        etag: str | None = None,
        log_probability: bool | None = None,
        top_n: int | None = None,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> Appended:
        """Read ``text`` and draw nothing."""
        operation = turns.append(
            self.name,
            text,
            etag=etag,
            log_probability=log_probability,
            top_n=top_n,
            unknown_characters=unknown_characters,
        )
        appended = await self._run(operation, timeout)
        self._info = appended.session
        return appended

    async def score(
        self,
        text: str,
        *,
        top_n: int | None = None,
        read_out: str | None = None,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> Score:
        """Return how likely ``text`` is after the session's memory, which stays as it is.

        ``read_out`` is as in the client's ``score``.
        """
        operation = turns.score(
            text, top_n=top_n, read_out=read_out, unknown_characters=unknown_characters, session=self.name
        )
        return await self._run(operation, timeout)

    async def cancel(self, *, timeout: float | None = None) -> SessionInfo:
        """End the running turn, whoever runs it, and wait until it is committed."""
        self._info = await self._transport.run(turns.cancel(self.name), timeout)
        self._is_unsettled = False
        return self._info

    async def transcript(self, start: int = 0, end: int | None = None, *, timeout: float | None = None) -> Transcript:
        """Return the text of positions ``[start, end)``; ``None``: to its end."""
        return await self._run(sessions.transcript(self.name, start, end), timeout)

    async def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        expire_time: datetime | None = None,
        etag: str | None = None,
        timeout: float | None = None,
    ) -> SessionInfo:
        """Replace the labels, or set when the session is forgotten: idle for ``ttl``, or at."""
        operation = sessions.update(self.name, labels, ttl, expire_time, etag)
        self._info = await self._run(operation, timeout)
        return self._info

    async def delete(self, *, etag: str | None = None, timeout: float | None = None) -> None:
        """Forget the session. A turn that is running on it ends with NotFoundError."""
        await self._transport.run(sessions.delete(self.name, etag), timeout)

    async def _run(self, operation: Operation[Value], timeout: float | None) -> Value:
        await self._settle(timeout)
        return await self._transport.run(operation, timeout)

    async def _settle(self, timeout: float | None) -> None:
        if self._is_unsettled:
            await self.cancel(timeout=timeout)
