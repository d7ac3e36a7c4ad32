"""Connections that break: the reader sees one text, and calls that do no harm are made again."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from elman_client import (
    Chunk,
    DeadlineExceededError,
    ElmanError,
    FailedPreconditionError,
    Finished,
    FinishReason,
    InternalError,
    InvalidArgumentError,
    OutOfRangeError,
    SessionBusyError,
    Started,
    TurnNotFoundError,
    UnavailableError,
)
from elman_client._shared import retrying
from tests.client.fake_memory import drawn
from tests.client.fake_servicer import packed_status

UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL
CANCELLED = grpc.StatusCode.CANCELLED  # of calls that a server drops when it ends
BUSY = grpc.StatusCode.FAILED_PRECONDITION  # stands for UNAVAILABLE with the reason SESSION_BUSY


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Wait only a little between attempts."""
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(retrying, "LAST_SECONDS", 0.01)


@pytest.fixture
async def client(connect, server) -> AsyncIterator[Any]:
    """A client that waits for a server that it has lost."""
    async with connect(server.target, retry_seconds=20) as connected:
        yield connected


def text_from(position: int, length: int) -> str:
    """Return what the fake model draws."""
    return "".join(map(drawn, range(position, position + length)))


async def read(generation: Any) -> list[Any]:
    """Return a turn's events."""
    return [event async for event in generation.events()]


@pytest.mark.parametrize(
    "breaks",
    [
        [UNAVAILABLE],
        [INTERNAL],
        [CANCELLED],
        [None],
        [UNAVAILABLE, None, INTERNAL, UNAVAILABLE] * 5,
        [INTERNAL, BUSY, BUSY],
    ],
)
async def test_a_broken_stream_is_gone_on_with(client, server, breaks):
    """5: whatever breaks it, and as often as it does, the reader sees one turn and one text."""
    session = await client.create_session("shakespeare", session_id="mine", seed=7)
    server.servicer.cuts = list(breaks)
    generation = session.generate("ROMEO:", max_chars=100)
    events = await read(generation)
    assert [type(event) for event in events if not isinstance(event, Chunk)] == [Started, Finished]
    assert "".join(event.text for event in events if isinstance(event, Chunk)) == text_from(6, 100)
    positions = [event.position for event in events if isinstance(event, Chunk)]
    assert positions == sorted(set(positions))
    assert generation.finished.finish_reason == FinishReason.MAX_CHARS
    assert server.servicer.cuts == []
    assert server.servicer.memories["sessions/mine"].text == "ROMEO:" + text_from(6, 100)


async def test_what_breaks_after_the_last_event_is_nothing_to_the_reader(client, server):
    """The turn is over, and how it ended is told."""
    server.servicer.breaks_at_end = True
    session = await client.create_session("shakespeare")
    assert [type(event) for event in await read(session.generate("a", max_chars=4))] == [Started, Chunk, Finished]


@pytest.mark.parametrize("breaks", [[UNAVAILABLE], [None, INTERNAL]])
async def test_a_turn_without_a_session_is_taken_again(client, server, breaks):
    """The server keeps nothing of it: with the same seed it comes out again, and what was read is left out."""
    await client.list_models()
    server.servicer.cuts = list(breaks)
    generation = client.generate("a", model="tiny", max_chars=50)
    assert "".join([text async for text in generation]) == text_from(1, 50)


async def test_a_turn_that_the_server_lost_is_asked_for_again(client, server):
    """Nothing was kept of it: the same request is sent again, under the same id."""
    session = await client.create_session("shakespeare", session_id="mine", seed=7)
    memory = server.servicer.memories["sessions/mine"]
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("ab", max_chars=30)
    text = await anext(generation)
    server.servicer.cuts, server.servicer.forgets = [UNAVAILABLE], True
    text += "".join([piece async for piece in generation])
    assert text == text_from(2, 30)
    assert memory.text == "ab" + text
    assert len(memory.asked) == 1


async def test_a_session_that_went_on_without_the_turn_is_an_error(client, server):
    """A text is never joined from two turns: if the session is another one by now, reading ends with that."""
    session = await client.create_session("shakespeare", session_id="mine", seed=7)
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("ab", max_chars=30)
    await anext(generation)
    server.servicer.cuts = [UNAVAILABLE]
    server.servicer.forgets = server.servicer.grows = True
    with pytest.raises(FailedPreconditionError, match="another one now"):
        await read(generation)


async def test_every_turn_has_an_id_of_its_own(client, server):
    """A UUID, unless the caller brings one; the same again for a turn that is sent again."""
    session = await client.create_session("shakespeare", session_id="mine")
    mine = str(uuid.uuid4())
    for options in ({}, {}, {"request_id": mine}):
        async for _ in session.generate("a", max_chars=1, **options):
            pass
    ids = list(server.servicer.memories["sessions/mine"].asked)
    assert len(set(ids)) == 3
    assert ids[2] == mine
    assert all(uuid.UUID(request_id).version == 4 for request_id in ids)


async def test_a_turn_can_be_resumed_by_hand(client, server):
    """With its id and a position, from another session object, as after a restart of one's own program."""
    session = await client.create_session("shakespeare", session_id="mine", seed=7)
    request_id = str(uuid.uuid4())
    async for _ in session.generate("ROMEO:", max_chars=20, request_id=request_id):
        pass
    other = client.session("mine")
    rest = other.resume(request_id, 10)
    assert "".join([text async for text in rest]) == text_from(10, 16)
    assert rest.started.start_position == 0
    server.servicer.cuts = [UNAVAILABLE, INTERNAL]
    assert "".join([text async for text in other.resume(request_id)]) == text_from(6, 20)
    with pytest.raises(TurnNotFoundError):
        await read(other.resume(str(uuid.uuid4())))


async def test_the_deadline_holds_over_all_streams(client, server):
    """A turn's timeout is for the whole of it, however often it is gone on with."""
    session = await client.create_session("shakespeare", session_id="mine")
    server.servicer.cuts = list(itertools.repeat(UNAVAILABLE, 10_000))
    server.servicer.seconds_per_chunk = 0.05
    with pytest.raises((DeadlineExceededError, UnavailableError)):
        await read(session.generate("a", max_chars=1000, timeout=0.5))


async def test_patience_has_an_end(connect, server):
    """A server that stays away is an error once retry_seconds are over; 0 is no patience at all."""
    for seconds in (0.3, 0):
        async with connect(server.target, retry_seconds=seconds) as client:
            session = await client.create_session("shakespeare")
            server.servicer.failure = (UNAVAILABLE, "gone", b"")
            try:
                with pytest.raises(UnavailableError):
                    await session.refresh()
                with pytest.raises(UnavailableError):
                    await read(session.generate("a"))
            finally:
                server.servicer.failure = None


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_patience_is_a_time(connect, seconds):
    """A negative time is refused, and what is no number too."""
    with pytest.raises(InvalidArgumentError, match="retry_seconds"):
        connect("x", retry_seconds=seconds)
    with pytest.raises(TypeError, match="retry_seconds"):
        connect("x", retry_seconds="1")


async def _fail_then_heal(server: Any, code: grpc.StatusCode, details: bytes = b"") -> None:
    num_before = len(server.servicer.headers)
    server.servicer.failure = (code, "gone for a moment", details)
    while len(server.servicer.headers) < num_before + 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    server.servicer.failure = None


@pytest.mark.parametrize("code", [UNAVAILABLE, INTERNAL, CANCELLED])
async def test_calls_that_do_no_harm_are_made_again(client, server, code):
    """Reading, scoring, cancelling, and what has a request id: a text, a new session, a fork, an import."""
    session = await client.create_session("shakespeare", session_id="mine")
    await session.append("a")
    for call in (
        session.refresh,
        session.transcript,
        session.cancel,
        session.export,
        client.list_models,
        lambda: session.score("b"),
        lambda: session.append("b"),
        lambda: session.update(labels={"a": "b"}),
        lambda: client.create_session("shakespeare"),
        session.fork,
        lambda: client.import_session(b"ELMANabc"),
    ):
        healing = asyncio.create_task(_fail_then_heal(server, code))
        await asyncio.sleep(0)
        await call()
        await healing
    assert server.servicer.memories["sessions/mine"].text == "ab"


async def test_calls_that_could_do_harm_are_not_made_again(client, server):
    """A change of what was seen, a deletion: unless the server says that it has done nothing."""
    session = await client.create_session("shakespeare", session_id="mine")
    calls = (
        lambda: session.update(labels={}, etag=session.info.etag),
        session.delete,
    )
    server.servicer.failure = (UNAVAILABLE, "gone", b"")
    for call in calls:
        num_before = len(server.servicer.headers)
        with pytest.raises(UnavailableError):
            await call()
        assert len(server.servicer.headers) == num_before + 1
    info = ErrorInfo(reason="DRAINING", domain="elman-server.github.io")
    for call in calls:
        healing = asyncio.create_task(_fail_then_heal(server, UNAVAILABLE, packed_status(UNAVAILABLE, "no", info)))
        await asyncio.sleep(0)
        await call()
        await healing


async def test_the_servers_own_faults_are_not_tried_again(client, server):
    """INTERNAL with a reason is the server's last word; so is a busy session that nobody else's loss explains."""
    session = await client.create_session("shakespeare")
    for code, reason, kind in (
        (INTERNAL, "INTERNAL", InternalError),
        (BUSY, "SESSION_BUSY", SessionBusyError),
        (grpc.StatusCode.ABORTED, "LEASE_LOST", ElmanError),
    ):
        details = packed_status(code, "no", ErrorInfo(reason=reason, domain="elman-server.github.io"))
        server.servicer.failure = (code, "no", details)
        for call in (session.refresh, lambda: read(session.generate("a"))):
            num_before = len(server.servicer.headers)
            with pytest.raises(kind):
                await call()
            assert len(server.servicer.headers) == num_before + 1
    server.servicer.failure = None


# The past of a session


async def test_forks_are_sessions(client):
    """Forked anywhere, one or many, each is a session that knows where it came from."""
    session = await client.create_session("shakespeare", session_id="mine", labels={"a": "b"})
    await session.append("abcdef")
    first, second = await session.fork(3, count=2)
    (whole,) = await session.fork()
    assert (first.info.position, whole.info.position) == (3, 6)
    assert first.name != second.name
    assert first.info.forked_from is not None
    assert (first.info.forked_from.name, first.info.forked_from.position) == ("sessions/mine", 3)
    assert session.info.forked_from is None
    assert (await first.transcript()).text == "abc"
    with pytest.raises(OutOfRangeError) as refused:
        await session.fork(7)
    assert refused.value.valid_range == (0, 6)


async def test_a_session_is_rewound(client):
    """It is what it was, and its info says so."""
    session = await client.create_session("shakespeare")
    await session.append("abcdef")
    info = await session.rewind(2)
    assert (info.position, session.info) == (2, info)
    assert (await session.transcript()).text == "ab"


async def test_a_session_travels(client):
    """Exported and imported it is another session of the same text; what is none is refused."""
    session = await client.create_session("shakespeare")
    await session.append("abc")
    snapshot = await session.export()
    other = await client.import_session(snapshot, session_id="arrived")
    assert other.name == "sessions/arrived"
    assert (await other.transcript()).text == "abc"
    with pytest.raises(InvalidArgumentError, match="snapshot"):
        await client.import_session(b"nonsense")
    with pytest.raises(TypeError, match="snapshot"):
        await client.import_session("text")


async def test_a_replay_tells_of_each_turn(client, server):
    """Turn by turn: whether text, state and arithmetic are what they were, and where they are not."""
    session = await client.create_session("shakespeare")
    await session.append("abc")
    await session.append("de")
    found = [turn async for turn in session.replay()]
    assert [(turn.turn.start, turn.turn.end, turn.end_position) for turn in found] == [(0, 3, 5), (3, 5, 5)]
    assert all(turn.is_equal and turn.is_fingerprint_equal for turn in found)
    server.servicer.difference_at = 4
    assert [turn.difference_at async for turn in session.replay()] == [4, 4]


async def test_a_broken_replay_is_gone_on_with(client, server):
    """The reader sees each turn once; a fault of the server's own is told."""
    session = await client.create_session("shakespeare")
    await session.append("abc")
    await session.append("de")
    server.servicer.cuts = [UNAVAILABLE, INTERNAL, UNAVAILABLE]
    assert [turn.turn.start async for turn in session.replay()] == [0, 3]
    assert server.servicer.cuts == []
    server.servicer.cuts = [grpc.StatusCode.DATA_LOSS]
    with pytest.raises(ElmanError):
        [turn async for turn in session.replay()]


async def test_a_replay_that_always_breaks_at_one_turn_comes_to_an_end(connect, server):
    """The turns before it, told again and again, do not keep the client at it."""
    async with connect(server.target, retry_seconds=0.2) as client:
        session = await client.create_session("shakespeare")
        await session.append("abc")
        await session.append("de")
        server.servicer.cuts = [UNAVAILABLE] * 10_000
        with pytest.raises(UnavailableError):
            [turn async for turn in session.replay()]


async def test_a_chat_takes_turns(client):
    """Each turn's events come in order, and its end ends the iteration."""
    session = await client.create_session("shakespeare", session_id="mine")
    async with session.chat() as chat:
        await chat.say("a", max_chars=3)
        await chat.stop()
        await chat.say("b", max_chars=2, seed=4)
        await chat.end()
        events = [event async for event in chat.events()]
    assert [type(event) for event in events] == [Started, Chunk, Finished] * 2
    assert "".join(event.text for event in events if isinstance(event, Chunk)) == text_from(1, 3) + text_from(5, 2)
