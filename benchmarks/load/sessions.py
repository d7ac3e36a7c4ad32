"""The load of sessions: many open streams, many idle sessions, a session with a long transcript."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.load.streams import request
from benchmarks.measure import quantile
from benchmarks.processes import resident_bytes
from elman.v1.generation_pb2 import AppendRequest, GenerateRequest, Stopping
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.sampling_pb2 import Sampling
from elman.v1.session_pb2 import CreateSessionRequest, ListSessionsRequest
from elman.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    import grpc

WRITERS: Final = 64
STREAM_CHARS: Final = 100_000
TURN_CHARS: Final = 16
APPEND_CHARS: Final = 100_000


async def open_streams(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Open `streams` turns, read the first text of each, and hold them all."""
    stub, begin = GenerationServiceStub(channel), time.perf_counter()
    calls: list[Any] = [
        stub.Generate(request(options["model"], seed, STREAM_CHARS)) for seed in range(options["streams"])
    ]
    await asyncio.gather(*(call.read() for call in calls))  # Started
    seconds_open = time.perf_counter() - begin
    await asyncio.gather(*map(_read_to_text, calls))
    seconds_text = time.perf_counter() - begin
    resident = [resident_bytes(pid) for pid in options["pids"]]
    for call in calls:
        call.cancel()
    return {"seconds_open": seconds_open, "seconds_text": seconds_text, "resident": resident}


async def _read_to_text(call: Any) -> None:
    while not (await call.read()).chunk.text:
        pass


async def make_sessions(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Create the sessions from number `first` up to `end`, not included."""
    stub, begin = SessionServiceStub(channel), time.perf_counter()
    numbers = iter(range(options["first"], options["end"]))

    async def write() -> None:
        for number in numbers:
            await stub.CreateSession(_create(options["model"], number))

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    return {"seconds": time.perf_counter() - begin}


async def random_turns(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Run `turns` turns, one after another, each on a random one of `sessions` sessions; time only the second of each.

    The first turn of a session reads one character less: there is none before it.
    """
    stub, chance = GenerationServiceStub(channel), random.Random(options.get("seed", 0))
    numbers = [chance.randrange(options["sessions"]) for _ in range(options["turns"])]
    for number in numbers:
        await _turn(stub, number)
    seconds = sorted([await _turn(stub, number) for number in numbers])
    return {"p50": quantile(seconds, 0.5), "p99": quantile(seconds, 0.99)}


async def list_page(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Read the first page of the list, directly after a session was created."""
    stub = SessionServiceStub(channel)
    await stub.CreateSession(_create(options["model"], options["number"]))
    begin = time.perf_counter()
    await stub.ListSessions(ListSessionsRequest(page_size=100))
    return {"seconds": time.perf_counter() - begin}


async def ages(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Run turns on one session for each position, after it has read that far, in alternating rounds."""
    stub, sessions, engines = GenerationServiceStub(channel), SessionServiceStub(channel), []
    for number, position in enumerate(options["positions"]):
        await sessions.CreateSession(_create(options["model"], number))
        for at in range(0, position, APPEND_CHARS):
            text = "A" * min(APPEND_CHARS, position - at)
            await stub.Append(AppendRequest(session=name_of(number), text=text))
        await _turn(stub, number)
        engines.append(resident_bytes(options["engine"]))
    numbers = range(len(options["positions"]))
    p50 = [
        [statistics.median([await _turn(stub, number) for _ in range(options["turns"])]) for number in numbers]
        for _ in range(options["rounds"])
    ]
    return {"p50": list(zip(*p50, strict=True)), "engine_bytes": engines}


async def _turn(stub: GenerationServiceStub, number: int) -> float:
    begin = time.perf_counter()
    turn = GenerateRequest(
        session=name_of(number),
        prompt="A",
        sampling=Sampling(temperature=0.8, top_k=40, top_p=0.95),
        stopping=Stopping(max_chars=TURN_CHARS),
    )
    call: Any = stub.Generate(turn)
    async for _ in call:
        pass
    return time.perf_counter() - begin


def _create(model: str, number: int) -> CreateSessionRequest:
    return CreateSessionRequest(session_id=_id(number), model=f"models/{model}")


def name_of(number: int) -> str:
    """Return the resource name of a session."""
    return f"sessions/{_id(number)}"


def _id(number: int) -> str:
    """Return an id of the length that the server chooses."""
    return f"{number:08x}-0000-4000-8000-000000000000"


MODES: Final = {
    "open": open_streams,
    "sessions": make_sessions,
    "turns": random_turns,
    "page": list_page,
    "ages": ages,
}
