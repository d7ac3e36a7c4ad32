"""A reader of one turn that stops when it has begun, so that a test can do something meanwhile."""

import asyncio
import contextlib

from elman_server.domain.events import Chunk, Finished, Started
from elman_server.domain.requests import GenerateRequest, ResumeRequest
from elman_server.turns.service import Turns
from tests.server.house import Text


class Reader:
    """Reads a turn in a task: up to its first chunk, and to its end once `gate` is set."""

    def __init__(self, turns: Turns, request: GenerateRequest | ResumeRequest) -> None:
        self.text = Text()
        self.gate = asyncio.Event()
        self._began = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns, request))

    @classmethod
    async def of(cls, turns: Turns, request: GenerateRequest | ResumeRequest) -> "Reader":
        """Return a reader that has its first chunk, or failed before."""
        reader = cls(turns, request)
        await reader._began.wait()
        return reader

    async def rest(self) -> Text:
        """Read to the end; return what was read, or raise what the turn ended with."""
        self.gate.set()
        return await self.task

    async def _run(self, turns: Turns, request: GenerateRequest | ResumeRequest) -> Text:
        turn = turns.resume(request) if isinstance(request, ResumeRequest) else turns.generate(request)
        try:
            async with contextlib.aclosing(turn) as messages:
                async for events in messages:
                    for event in events:
                        match event:
                            case Started():
                                self.text.started = event
                            case Finished():
                                self.text.finished = event
                            case Chunk():
                                self.text.chunks.append(event)
                                self._began.set()
                    if self.text.chunks:
                        await self.gate.wait()
        finally:
            self._began.set()
        return self.text
