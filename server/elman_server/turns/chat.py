"""Chat: turns in, characters out; a new turn or a stop ends the one that runs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.events import Event, Finished, FinishReason
from elman_server.domain.requests import StopRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from elman_server.domain.requests import GenerateRequest
    from elman_server.sessions.leases import Lease
    from elman_server.turns.service import Turns

    Action = GenerateRequest | StopRequest


class Chat:
    """One conversation.

    Args:
        actions: turns and stops.
    """

    def __init__(self, turns: Turns, actions: AsyncIterator[Action]) -> None:
        self._turns = turns
        self._actions = actions
        self._inbox: asyncio.Queue[Action | Exception | StopAsyncIteration] = asyncio.Queue(1)
        self._running: Lease | None = None
        self._is_ended = False  # what runs, or is about to, has to end
        self._last: tuple[GenerateRequest, Finished] | None = None  # the last turn, and how it ended

    async def events(self) -> AsyncGenerator[tuple[Event, ...], None]:
        """Run the turns in order; yield what happens in them. What is wrong with an action is raised here."""
        reader = asyncio.create_task(self._read())
        try:
            while True:
                action = await self._inbox.get()
                if isinstance(action, StopAsyncIteration):
                    return
                if isinstance(action, Exception):
                    raise action
                self._is_ended = False
                if isinstance(action, StopRequest):
                    if action.position is not None:
                        yield (await self._cut(action.position),)
                    continue
                self._last = None
                async with aclosing(self._turns.generate(action, self._begun)) as turn:
                    async for events in turn:
                        if isinstance(events[-1], Finished):
                            self._last = action, events[-1]
                        yield events
                self._running = None
        finally:
            reader.cancel()

    async def _cut(self, position: int) -> Finished:
        """Keep the last turn up to where its reader is; return how it ended."""
        session = self._last and self._last[0].target.session
        if self._last is None or session is None:
            raise InvalidFieldError("stop.position", "needs a turn on a session before it; leave it out")
        request, finished = self._last
        info = await self._turns.cancel(session, position, request.request_id)
        num_cut = finished.position - info.position
        if not num_cut:
            return finished
        generated = max(0, finished.generated_chars - num_cut)
        return Finished(
            FinishReason.CANCELLED,
            prompt_chars=finished.prompt_chars + finished.generated_chars - num_cut - generated,
            generated_chars=generated,
            position=info.position,
            state_digest=info.state_digest,
            etag=info.etag,
        )

    async def _read(self) -> None:
        try:
            async for action in self._actions:
                await self._inbox.put(action)
                self._interrupt()
        except Exception as error:  # noqa: BLE001  raised where the events are read
            await self._inbox.put(error)
            self._interrupt()
        else:
            await self._inbox.put(StopAsyncIteration())

    def _begun(self, lease: Lease) -> None:
        self._running = lease
        if self._is_ended:
            self._interrupt()

    def _interrupt(self) -> None:
        self._is_ended = True
        if self._running is not None:
            self._running.interrupt(FinishReason.CANCELLED)
