"""Callers who come and go in every way, and the slope of the server's memory meanwhile."""

import asyncio
import collections
import random
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import numpy as np

from elman.v1 import generation_pb2 as messages
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.sampling_pb2 import Sampling
from elman.v1.session_pb2 import CreateSessionRequest, DeleteSessionRequest
from elman.v1.session_pb2_grpc import SessionServiceStub
from tests.server_process import ServerProcess, resident_bytes

PROMPT: Final = "What is the city but the people?\n"
_LENGTH: Final = 500
_SEEDS: Final = 4
_NUM_CALLERS: Final = 8
_WARM_SHARE: Final = 1 / 4  # of the time: pools and allocators fill
_LOOK_SECONDS: Final = 1.0
_PATIENCE: Final = 600  # on a machine that others use too
_HOUR: Final = 3600
_MB: Final = 1e6


@dataclass
class Memory:
    """What the processes of a server hold over time, in bytes."""

    seconds: list[float] = field(default_factory=list)
    front: list[int] = field(default_factory=list)
    engine: list[int] = field(default_factory=list)

    def look(self, process: ServerProcess, engines: Sequence[int]) -> None:
        """Add a sample."""
        self.seconds.append(time.monotonic())
        self.front.append(process.rss())
        self.engine.append(sum(resident_bytes(engine) for engine in engines))

    def slopes(self) -> dict[str, float]:
        """Return the slope of a straight line through the samples after the warm-up, in MB an hour, of each process."""
        seconds = np.array(self.seconds)
        is_warm = seconds >= seconds[0] + _WARM_SHARE * (seconds[-1] - seconds[0])
        return {
            name: float(np.polyfit(seconds[is_warm], np.array(held)[is_warm], 1)[0]) * _HOUR / _MB
            for name, held in (("front", self.front), ("engine", self.engine))
        }


async def churn(process: ServerProcess, seconds: float) -> tuple[dict[str, int], Memory]:
    """Let callers come and go for a time; return how often in which way, and what the server held meanwhile.

    Every text, whole or in part, is compared with the first one of its seed.
    """
    memory, counts, engines = Memory(), collections.Counter[str](), process.engines()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(process.address, options) as channel:
        caller = _Caller(channel)
        await caller.read_expected()
        end = time.monotonic() + seconds

        async def come_and_go(chance: random.Random) -> None:
            while time.monotonic() < end:
                way = chance.choice(_WAYS)
                await way(caller, chance)
                counts[way.__name__] += 1

        async def look() -> None:
            while time.monotonic() < end:
                memory.look(process, engines)
                await asyncio.sleep(_LOOK_SECONDS)

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            for number in range(_NUM_CALLERS):
                group.create_task(come_and_go(random.Random(number)))
    return dict(counts), memory


class _Caller:
    """The stubs of one channel, and the texts that they must give."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.generation, self.sessions = GenerationServiceStub(channel), SessionServiceStub(channel)
        self._expected: list[str] = []

    async def read_expected(self) -> None:
        for seed in range(_SEEDS):
            request = _request(seed, model="models/gru")
            self._expected.append("".join([r.chunk.text async for r in self.generation.Generate(request)]))

    async def read(self, responses: AsyncIterable[Any], seed: int, num_chars: int = _LENGTH) -> None:
        """Read that many characters of a text at least, or to its end, and compare it."""
        text = ""
        async for response in responses:
            text += response.chunk.text
            if len(text) >= num_chars > 0 and num_chars < _LENGTH:
                break
        assert self._expected[seed].startswith(text), f"seed {seed}: {text!r}"

    async def session(self) -> str:
        created = await self.sessions.CreateSession(CreateSessionRequest(model="models/gru"), timeout=_PATIENCE)
        name: str = created.session.name
        return name

    async def delete(self, name: str) -> None:
        await self.sessions.DeleteSession(DeleteSessionRequest(name=name), timeout=_PATIENCE)


def _request(seed: int, **target: str) -> messages.GenerateRequest:
    stopping = messages.Stopping(max_chars=_LENGTH)
    return messages.GenerateRequest(prompt=PROMPT, sampling=Sampling(seed=seed), stopping=stopping, **target)  # type: ignore[arg-type]


async def _whole(caller: _Caller, chance: random.Random) -> None:
    """Read a text to its end, on a session that is deleted."""
    name, seed = await caller.session(), chance.randrange(_SEEDS)
    await caller.read(caller.generation.Generate(_request(seed, session=name), timeout=_PATIENCE), seed)
    await caller.delete(name)


async def _left(caller: _Caller, chance: random.Random) -> None:
    """Leave in the middle of a text."""
    seed = chance.randrange(_SEEDS)
    call: Any = caller.generation.Generate(_request(seed, model="models/gru"), timeout=_PATIENCE)
    await caller.read(call, seed, chance.randrange(1, _LENGTH))
    call.cancel()


async def _left_at_once(caller: _Caller, chance: random.Random) -> None:
    """Leave before anything has come, or when it comes."""
    call: Any = caller.generation.Generate(_request(0, model="models/gru"), timeout=_PATIENCE)
    await asyncio.sleep(chance.choice((0, 0, 0.001, 0.003)))
    call.cancel()


async def _cancelled(caller: _Caller, chance: random.Random) -> None:
    """Cancel a turn of a session, and read what it still gives."""
    name, seed = await caller.session(), chance.randrange(_SEEDS)
    call: Any = caller.generation.Generate(_request(seed, session=name), timeout=_PATIENCE)
    reading = asyncio.ensure_future(caller.read(call, seed))
    await asyncio.sleep(chance.random() * 0.01)
    await caller.generation.Cancel(messages.CancelRequest(session=name), timeout=_PATIENCE)
    await reading
    await caller.delete(name)


async def _chat(caller: _Caller, chance: random.Random) -> None:
    """Begin a turn of a chat and leave it: the call is cancelled, or the caller sends no more, or stops the turn."""
    seed, way = chance.randrange(_SEEDS), chance.choice(("cancel", "done", "stop"))
    call: Any = caller.generation.Chat(timeout=_PATIENCE)
    await call.write(messages.ChatRequest(turn=_request(seed, model="models/gru")))
    if way == "done":
        await call.done_writing()
        await caller.read(call, seed)
    else:
        await caller.read(call, seed, chance.randrange(1, _LENGTH // 2))
        if way == "stop":
            await call.write(messages.ChatRequest(stop=messages.Stop()))
        call.cancel()


async def _score(caller: _Caller, chance: random.Random) -> None:
    """Score a text."""
    text = PROMPT * chance.randrange(1, 20)
    await caller.generation.Score(messages.ScoreRequest(model="models/gru", text=text), timeout=_PATIENCE)


_WAYS: Final[Sequence[Callable[[_Caller, random.Random], Awaitable[None]]]] = (
    *(_whole, _left, _left, _left_at_once, _left_at_once),
    *(_cancelled, _chat, _chat, _score),
)
