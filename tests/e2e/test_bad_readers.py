"""Callers that ask twice, leave, or do not read what they have asked for."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from elman.v1 import generation_pb2 as messages
from elman.v1 import sampling_pb2
from elman.v1 import session_pb2 as sessions
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman_client import Client
from tests.e2e.raw_http2 import RawCall
from tests.e2e.wire import (
    PATIENCE,
    PROMPT,
    Refusal,
    Wire,
    begin,
    held,
    one_shot,
    reference,
    refusal,
    refused,
    text_of,
    wire_to,
)
from tests.models import tiny_model
from tests.server_process import ServerProcess

_MIB: Final = 2**20
_CROWD: Final = 4_000
_BATCH: Final = 250  # streams that are opened, or left, together


@pytest.fixture(autouse=True)
def _still_serves(server_process: ServerProcess, references: dict[str, str]) -> Iterator[None]:
    """Whatever a test does, afterwards somebody else gets the text that he always gets."""
    yield
    with Client(server_process.address) as somebody:
        assert {model: reference(somebody, model=model) for model in references} == references


def state(wire: Wire, name: str) -> sessions.Session:
    """Return a session as others see it."""
    return wire.sessions.GetSession(sessions.GetSessionRequest(name=name), timeout=PATIENCE).session


def cancel(wire: Wire, name: str) -> sessions.Session:
    """End a session's turn; return the session at rest."""
    return wire.generation.Cancel(messages.CancelRequest(session=name), timeout=PATIENCE).session


def transcript(wire: Wire, name: str) -> str:
    """Return what a session has read and written."""
    return wire.sessions.GetTranscript(sessions.GetTranscriptRequest(name=name), timeout=PATIENCE).text


def test_a_second_turn_is_refused_and_the_first_is_not_disturbed(wire: Wire):
    """While a turn runs, another one gets SESSION_BUSY with RetryInfo; the first gives the text that it always does."""
    name, other = wire.session(seed=5), wire.session(seed=5)
    busy = Refusal("UNAVAILABLE", "SESSION_BUSY", retry=True)
    first = wire.generation.Generate(held(name), timeout=PATIENCE)
    begun = next(iter(first))
    assert begun.HasField("started")

    assert refused(wire.generate, held(name)) == busy
    assert refused(wire.generation.Append, messages.AppendRequest(session=name, text="a")) == busy
    assert state(wire, name).state == sessions.Session.STATE_GENERATING
    undisturbed = wire.generation.Generate(held(other), timeout=PATIENCE)
    assert text_of([begun, *first]) == text_of(list(undisturbed))
    assert state(wire, name).position == len(PROMPT) + 2000


def test_deleting_a_session_ends_its_turn(wire: Wire):
    """A turn whose session is deleted ends with NOT_FOUND, and so does everything after it."""
    name = wire.session()
    gone = Refusal("NOT_FOUND", "SESSION_NOT_FOUND")
    call = begin(wire, held(name))

    wire.sessions.DeleteSession(sessions.DeleteSessionRequest(name=name), timeout=PATIENCE)

    assert refused(list, call) == gone
    assert refused(state, wire, name) == gone


def test_a_turn_outlives_its_sessions_time(wire: Wire):
    """A session whose moment passes under a running turn expires after it; idle time starts anew with a turn."""
    soon = Timestamp()
    soon.FromMilliseconds(int((time.time() + 1) * 1000))
    idle, fixed = wire.session(ttl=Duration(seconds=600)), wire.session(expire_time=soon)
    before = state(wire, idle).expire_time.ToNanoseconds()
    turn = begin(wire, held(fixed))
    time.sleep(1.1)  # the moment has passed now

    assert list(turn)[-1].finished.position == len(PROMPT) + 2000
    assert refused(state, wire, fixed) == Refusal("NOT_FOUND", "SESSION_EXPIRED")
    wire.generation.Append(messages.AppendRequest(session=idle, text="a"), timeout=PATIENCE)
    assert state(wire, idle).expire_time.ToNanoseconds() > before


def test_a_client_that_does_not_read_holds_up_nobody_else(server_process: ServerProcess, wire: Wire):
    """Its stream pauses, others go on, the server's memory stays where it was, and Cancel frees the session."""
    name, before = wire.session(), server_process.rss()
    with RawCall(server_process.address, held(name).SerializeToString()) as call:
        assert call.read(1)
        while state(wire, name).state != sessions.Session.STATE_GENERATING:
            pass
        for _ in range(3):
            assert len(text_of(wire.generate(one_shot(stopping=messages.Stopping(max_chars=5000))))) == 5000
        stopped = cancel(wire, name)

    assert stopped.state == sessions.Session.STATE_ACTIVE
    assert 0 < stopped.position < 2000
    assert server_process.rss() - before < 50 * _MIB
    assert len(text_of(wire.generate(one_shot()))) == 20


def test_readers_that_have_fallen_asleep_cost_little(server_process: ServerProcess, wire: Wire):
    """Streams that nobody reads pause; Cancel commits no less than what their readers find when they wake."""
    names = [wire.session(seed=number) for number in range(8)]
    before = server_process.rss()
    calls = [begin(wire, held(name)) for name in names]
    assert len(text_of(wire.generate(one_shot(stopping=messages.Stopping(max_chars=5000))))) == 5000

    with wire_to(server_process.address) as other:
        cancels = [other.generation.Cancel.future(messages.CancelRequest(session=name)) for name in names]
        positions = [answer.result(PATIENCE).session.position for answer in cancels]
    for name, call, position in zip(names, calls, positions, strict=True):
        assert len(transcript(wire, name)) == position < 2000
        assert transcript(wire, name)[len(PROMPT) + 1 :].startswith(_rest(call))  # 1: `begin` has read one
    assert server_process.rss() - before < 50 * _MIB


def _rest(call: Any) -> str:
    """Return the text that was under way when a turn ended; a reader as slow as this one may be cut off."""
    text = ""
    try:
        for response in call:
            text += response.chunk.text
    except grpc.RpcError as error:
        if refusal(error) != Refusal("CANCELLED", "TURN_CANCELLED"):
            raise
    return text


@pytest.fixture(scope="module")
def small_server(models) -> Iterator[ServerProcess]:
    """A server whose every limit is reached at once."""
    limits = {"max-streams": 4, "max-batch": 1, "max-waiting": 1, "max-sessions": 5, "max-chars": 1000}
    flags = [part for name, value in limits.items() for part in (f"--{name}", str(value))]
    with ServerProcess(models, *flags) as process:
        yield process


def test_past_a_limit_the_refusal_comes_at_once(small_server: ServerProcess):
    """Streams past the rows and places of a model are UNAVAILABLE, past the server's RESOURCE_EXHAUSTED."""
    overloaded = Refusal("UNAVAILABLE", "OVERLOADED", retry=True)
    exhausted = Refusal("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS", retry=True)
    with wire_to(small_server.address) as wire:
        open_calls = [_waiting(wire, model) for model in ("gru", "gru")]

        assert refused(wire.generate, one_shot()) == overloaded
        open_calls += [_waiting(wire, model) for model in ("lstm", "lstm")]
        assert refused(wire.generate, one_shot(model="bytes")) == exhausted

        for call in open_calls:
            call.cancel()
        while (code := _code(wire)) != "OK":
            assert code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}


def _waiting(wire: Wire, model: str) -> Any:
    """Open a stream that runs, or waits for a row, until somebody reads it."""
    call: Any = wire.generation.Generate(held(wire.session(model), 1000), timeout=PATIENCE)
    assert next(call).HasField("started")
    return call


def _code(wire: Wire) -> str:
    """Return the status of a call."""
    try:
        wire.generate(one_shot())
    except grpc.RpcError as error:
        return refusal(error).code
    return "OK"


def test_room_for_a_session_is_made_and_said(small_server: ServerProcess):
    """The least recently used session is evicted for a new one, and its owner is told so."""
    with wire_to(small_server.address) as wire:
        first, *_, last = [wire.session() for _ in range(6)]

        assert refused(state, wire, first) == Refusal("NOT_FOUND", "SESSION_EVICTED")
        assert state(wire, last).position == 0


class Crowd:
    """Thousands of callers on ten connections, of which each has a thousand, who open streams and leave them."""

    def __init__(self, channels: list[grpc.aio.Channel]) -> None:
        self._stubs: Any = itertools.cycle([GenerationServiceStub(channel) for channel in channels])
        self._calls: list[Any] = []

    async def open(self, number: int) -> None:
        """Open streams, a bounded number at a time, and see each of them begin."""
        for _ in range(0, number, _BATCH):
            calls = [next(self._stubs).Generate(_LONG) for _ in range(_BATCH)]
            events = await asyncio.gather(*(call.read() for call in calls))
            assert all(event.HasField("started") for event in events)
            self._calls += calls

    async def leave(self) -> None:
        """Abandon them all."""
        assert [call for call in self._calls if call.done()] == []
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*(call.code() for call in self._calls))
        self._calls.clear()

    async def complete(self, number: int) -> set[str]:
        """Run so many streams at once to their end; return their different texts."""

        async def run() -> str:
            return "".join([event.chunk.text async for event in next(self._stubs).Generate(_SHORT)])

        return set(await asyncio.gather(*(run() for _ in range(number))))


@pytest.mark.timeout(600)  # two cores that others use too are slow at thousands of anything
async def test_4_000_streams_opened_and_abandoned_leave_nothing(tmp_path: Path):
    """All open at once and none is cut off; then their rows are free and further crowds take no memory of their own."""
    # Few rows, so that the crowd waits in the queue and costs no more than its being there.
    with ServerProcess(tiny_model(tmp_path / "gru.onnx", name="gru").parent, "--max-batch", "4") as process:
        async with contextlib.AsyncExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [grpc.aio.insecure_channel(process.address, options) for _ in range(10)]
            for channel in channels:
                await stack.enter_async_context(channel)
            crowd = Crowd(channels)
            expected = await crowd.complete(1)
            memory = [process.rss()]
            for number in (_CROWD, *[_CROWD // 5] * 3):
                await crowd.open(number)
                await crowd.leave()
                assert await crowd.complete(300) == expected
                memory.append(process.rss())

    before, after, *again = memory
    assert after - before < 300 * _MIB  # what Python and gRPC keep for the next crowd: about 16 KiB a stream
    assert min(again) - after < 16 * _MIB  # the allocator gives back and takes 30 MiB from crowd to crowd


_LONG: Final = one_shot(stopping=messages.Stopping(max_chars=100_000))
_SHORT: Final = one_shot(sampling=sampling_pb2.Sampling(seed=9))
