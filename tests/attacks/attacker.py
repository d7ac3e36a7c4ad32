"""The attacks, each bounded in time and number: `python -m tests.attacks.attacker NAME ADDRESS SECONDS`.

An attack runs in a process of its own and prints what became of its calls, as JSON.
"""

import asyncio
import collections
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from elman.v1 import generation_pb2 as messages
from elman.v1 import session_pb2 as sessions
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.sampling_pb2 import Sampling
from elman.v1.session_pb2_grpc import SessionServiceStub
from tests.attacks.frames import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    RST_STREAM,
    Connection,
    frame,
    headers,
    message,
)

_GENERATE: Final = "/elman.v1.GenerationService/Generate"
_SCORE: Final = "/elman.v1.GenerationService/Score"
_MIB: Final = 1 << 20
_MAX_FRAME: Final = 1 << 14
_LONG: Final = "the quality of mercy is not strain'd " * 2703  # 100,011 characters
_DEADLINE: Final = 100

Outcomes = dict[str, int]


def rapid_reset(address: str, seconds: float) -> Outcomes:
    """Open calls and reset them at once, on eight connections."""

    def burst(first: int) -> list[bytes]:
        return [
            part
            for stream in range(first, first + 200, 2)
            for part in (headers(_GENERATE, stream), frame(RST_STREAM, 0, stream, CANCEL))
        ]

    return _bursts(address, seconds, burst)


def empty_calls(address: str, seconds: float) -> Outcomes:
    """Open calls that end without a message, on eight connections."""
    return _bursts(
        address,
        seconds,
        lambda first: [headers(_GENERATE, stream, END_HEADERS | END_STREAM) for stream in range(first, first + 200, 2)],
    )


def headers_only(address: str, seconds: float) -> Outcomes:
    """Open calls on one connection and send nothing more: 30,000, which are 3 MB."""
    connection = Connection(address)
    sent = 0
    for first in range(1, 60_000, 200):
        sent += 100 * connection.send([headers(_GENERATE, stream) for stream in range(first, first + 200, 2)])
    time.sleep(seconds)
    connection.close()
    return {"calls": sent}


def half_messages(address: str, seconds: float) -> Outcomes:
    """Announce messages of 8 MiB and send all of them but a byte: 60, on each of eight connections."""
    connections = [Connection(address) for _ in range(8)]
    body = frame(DATA, 0, 1, b"x" * _MAX_FRAME)[9:]
    end = time.monotonic() + seconds
    for connection in connections:
        connection.socket.settimeout(0.2)
        for stream in range(1, 121, 2):
            connection.send([headers(_SCORE, stream), frame(DATA, 0, stream, message(b"", 8 * _MIB))])
    sent = 0
    for _ in range(8 * _MIB // _MAX_FRAME - 1):
        for connection in connections:
            for stream in range(1, 121, 2):
                # Blind to flow control, as the answers are thrown away: what is too much is the connection's end.
                if time.monotonic() > end or not connection.send([frame(DATA, 0, stream, body)]):
                    break
                sent += 1
    time.sleep(max(0.0, end - time.monotonic()))
    return {"frames": sent}


async def half_messages_politely(address: str, seconds: float) -> Outcomes:
    """Send the first 400 KB of a message to each of 480 calls, as far as flow control lets, and not the rest."""
    connections = [Connection(address) for _ in range(8)]
    for connection in connections:
        for stream in range(1, 121, 2):
            connection.send([headers(_SCORE, stream), frame(DATA, 0, stream, message(b"", 400_000))])
    for _ in range(24):  # as the server opens the windows, about
        for connection in connections:
            for stream in range(1, 121, 2):
                connection.send([frame(DATA, 0, stream, b"x" * _MAX_FRAME)])
        await asyncio.sleep(seconds / 24)
    return {}


async def standing_readers(address: str, seconds: float) -> Outcomes:
    """Ask for all details of long texts, 600 times, and read nothing."""
    request = messages.GenerateRequest(
        model="models/gru",
        prompt="x",
        sampling=Sampling(seed=1),
        stopping=messages.Stopping(max_chars=100_000),
        detail=messages.Detail(log_probability=True, top_n=20),
    ).SerializeToString()
    connections = []
    for _ in range(6):
        connection = Connection(address, reads=False, window=0)
        for stream in range(1, 201, 2):
            connection.send([headers(_GENERATE, stream), frame(DATA, END_STREAM, stream, message(request))])
        connections.append(connection)
    await asyncio.sleep(seconds)
    return {"streams": 600}


async def long_scores(address: str, seconds: float) -> Outcomes:
    """Score 48 texts of 100,000 characters at once."""
    async with _channel(address) as channel:
        request = messages.ScoreRequest(model="models/gru", text=_LONG[:100_000])
        calls = [GenerationServiceStub(channel).Score(request, timeout=_DEADLINE) for _ in range(48)]
        return await _outcomes(calls, seconds)


async def long_appends(address: str, seconds: float) -> Outcomes:
    """Append 100,000 characters to each of 48 sessions at once, with details."""
    async with _channel(address) as channel:
        stub, create = GenerationServiceStub(channel), SessionServiceStub(channel).CreateSession
        made = [await create(sessions.CreateSessionRequest(model="models/gru")) for _ in range(48)]
        detail = messages.Detail(log_probability=True)
        requests = [
            messages.AppendRequest(session=answer.session.name, text=_LONG[:100_000], detail=detail) for answer in made
        ]
        return await _outcomes([stub.Append(request, timeout=_DEADLINE) for request in requests], seconds)


async def cancelled_scores(address: str, seconds: float) -> Outcomes:
    """Score 600 texts of 100,000 characters, and cancel each."""
    async with _channel(address) as channel:
        request = messages.ScoreRequest(model="models/gru", text=_LONG[:100_000])
        stub, outcomes, end = GenerationServiceStub(channel), collections.Counter[str](), time.monotonic() + seconds
        for _ in range(12):
            if time.monotonic() > end:
                break
            calls = [stub.Score(request, timeout=_DEADLINE) for _ in range(50)]
            await asyncio.sleep(0.3)
            for call in calls:
                call.cancel()
            outcomes.update(await _outcomes(calls, seconds))
        return dict(outcomes)


async def forks(address: str, seconds: float) -> Outcomes:
    """Fork a session of 20,000 characters a hundredfold, ten times."""
    async with _channel(address) as channel:
        stub, generation = SessionServiceStub(channel), GenerationServiceStub(channel)
        name = (await stub.CreateSession(sessions.CreateSessionRequest(model="models/gru"))).session.name
        for _ in range(10):
            await generation.Append(messages.AppendRequest(session=name, text=_LONG[:2000]), timeout=_DEADLINE)
        request = sessions.ForkSessionRequest(name=name, count=100)
        return await _outcomes([stub.ForkSession(request, timeout=_DEADLINE) for _ in range(10)], seconds)


async def silent_chats(address: str, seconds: float) -> Outcomes:
    """Open 2,000 chats, send nothing and stay."""
    channels = [_channel(address) for _ in range(2)]
    calls = [GenerationServiceStub(channel).Chat(timeout=_DEADLINE) for channel in channels for _ in range(1000)]
    await asyncio.sleep(seconds)
    outcomes = collections.Counter(_name(call) for call in calls)
    for channel in channels:
        await channel.close(None)
    return dict(outcomes)


async def huge_fields(address: str, seconds: float) -> Outcomes:
    """Send fields of 7.9 MB, one of each that is a string or a list."""
    big = "a" * 7_900_000
    stopping = messages.Stopping(max_chars=1)
    samplings = [
        Sampling(banned_characters=big),
        Sampling(allowed_characters=big),
        Sampling(banned_characters=big[:300_000]),
        Sampling(allowed_characters=big[:300_000]),
    ]
    async with _channel(address) as channel:
        stub = GenerationServiceStub(channel)
        calls = []
        for sampling in samplings:
            request = messages.GenerateRequest(model="models/gru", prompt="x", sampling=sampling, stopping=stopping)
            calls += [stub.Generate(request, timeout=_DEADLINE) for _ in range(4)]
        return await _outcomes(calls, seconds)


def _bursts(address: str, seconds: float, burst: Callable[[int], list[bytes]]) -> Outcomes:
    connections = [Connection(address) for _ in range(8)]
    end, first, sent, is_open = time.monotonic() + seconds, 1, 0, True
    while is_open and time.monotonic() < end and first < 1 << 30:
        parts = burst(first)
        is_open = sum(connection.send(parts) for connection in connections) > 0
        first, sent = first + 200, sent + 100 * len(connections)
    for connection in connections:
        connection.close()
    return {"calls": sent}


async def _outcomes(calls: list[Any], seconds: float) -> Outcomes:
    """Return how calls ended, those that have after that time."""
    waits = [asyncio.ensure_future(call.code()) for call in calls]
    done, late = await asyncio.wait(waits, timeout=seconds)
    outcomes = collections.Counter(wait.result().name for wait in done)
    for wait in late:
        wait.cancel()
    return dict(outcomes) | ({"running": len(late)} if late else {})


def _name(call: Any) -> str:
    return "open" if not call.done() else "ended"


def _channel(address: str) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.insecure_channel(address, options)


ATTACKS: Final[dict[str, Callable[[str, float], Outcomes | Awaitable[Outcomes]]]] = {
    attack.__name__: attack
    for attack in (
        rapid_reset,
        empty_calls,
        headers_only,
        half_messages,
        half_messages_politely,
        standing_readers,
        long_scores,
        long_appends,
        cancelled_scores,
        forks,
        silent_chats,
        huge_fields,
    )
}


async def _main(name: str, address: str, seconds: float) -> None:
    outcomes: Any = ATTACKS[name](address, seconds)
    sys.stdout.write(json.dumps(await outcomes if asyncio.iscoroutine(outcomes) else outcomes))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
