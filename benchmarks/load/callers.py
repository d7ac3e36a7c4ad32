"""The load of principals: each keeps some turns running, one after another, and sees how it is served."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from benchmarks.load.streams import prompt_of, request
from elman.v1.generation_pb2_grpc import GenerationServiceStub

PATIENCE: Final = 120.0  # until a load is steady
MAX_TURNS: Final = 100_000  # of one load, whatever its time
REFUSED_PAUSE: Final = 0.05  # until a turn that was refused is tried again: this caller is rude


@dataclass
class Seen:
    """What came while the load was measured.

    Attributes:
        first: seconds from the call of each turn to its first character.
        ended: turns by status.
    """

    num_chars: int = 0
    first: list[float] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)


class Callers:
    """Keeps turns running, `streams` for each of `tokens`, each `chars` characters after a prompt of `prompt_chars`.

    The load is steady when `steady` of them have ended.
    """

    def __init__(self, channel: grpc.aio.Channel, options: dict[str, Any]) -> None:
        self._stub = GenerationServiceStub(channel)
        self._options = options
        self._prompt = prompt_of(options["prompt_chars"])
        self._num_turns = 0
        self.seen = Seen()
        self._is_steady = asyncio.Event()
        numbers = range(options["streams"])
        self._tasks = [asyncio.create_task(self._repeat(token)) for token in options["tokens"] for _ in numbers]

    async def begin(self) -> None:
        """Wait until turns end: what a crowd costs when it comes is over then."""
        await asyncio.wait_for(self._is_steady.wait(), PATIENCE)

    async def end(self) -> None:
        """End the load."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, token: str) -> None:
        while self._num_turns < MAX_TURNS:
            self._num_turns += 1
            try:
                await self._turn(token)
            except grpc.aio.AioRpcError as error:
                self.seen.ended[error.code().name] += 1
                await asyncio.sleep(REFUSED_PAUSE)

    async def _turn(self, token: str) -> None:
        begin, is_first = time.perf_counter(), True
        turn = request(self._options["model"], self._num_turns, self._options["chars"], self._prompt)
        call: Any = self._stub.Generate(turn, metadata=(("authorization", f"Bearer {token}"),))
        async for response in call:
            if text := response.chunk.text:
                self.seen.num_chars += len(text)
                if is_first:
                    self.seen.first.append(time.perf_counter() - begin)
                    is_first = False
        self.seen.ended["OK"] += 1
        if self.seen.ended["OK"] >= self._options["steady"]:
            self._is_steady.set()


_running: list[Callers] = []


async def begin(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Begin the load of some principals, which continues; see Callers."""
    load = Callers(channel, options)
    _running.append(load)
    await load.begin()
    return {}


async def look(_: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Return what came in the next `seconds`."""
    (load,) = _running
    load.seen, own, start = Seen(), time.process_time(), time.perf_counter()
    await asyncio.sleep(options["seconds"])
    seen, seconds = load.seen, time.perf_counter() - start
    return {
        "num_chars": seen.num_chars,
        "rate": seen.num_chars / seconds,
        "first": statistics.median(seen.first) if seen.first else 0.0,
        "ended": dict(seen.ended),
        "client_cores": (time.process_time() - own) / seconds,
    }


async def end(_: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """End the load."""
    await _running.pop().end()
    return {}


MODES: Final = {"begin": begin, "look": look, "end": end}
