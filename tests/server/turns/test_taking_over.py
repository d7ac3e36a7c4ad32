"""Turns that are resumed on another server while the first one still has them: it was slow, or was paused."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from elman_server.domain.errors import LeaseLostError, PositionOutOfRangeError, SessionBusyError
from elman_server.domain.events import Chunk, Event, Finished, FinishReason, Started
from elman_server.domain.requests import AppendRequest, ResumeRequest, Target
from elman_server.sessions.records import OpenTurn
from elman_server.sessions.session import SessionInfo
from elman_server.sessions.transitions import Durability
from elman_server.turns.runner import POLL_SECONDS
from tests.server.house import House
from tests.server.replicas import Replica, asked, until

PROMPT = "What is the city but the people?\n"
LENGTH = 1500
PIECE = 10  # characters of a chunk
PAUSED = Durability(commit_chars=10**6, commit_seconds=3600)  # does not look whether a turn is still its own

Events = AsyncGenerator[tuple[Event, ...], None]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def read(turn: Events) -> list[Event]:
    """Read a turn to its end."""
    return [event async for happened in turn for event in happened]


async def read_beyond(events: Events, durable: int) -> int:
    """Read a turn until it says that it is durable beyond a position; return up to where."""
    async for happened in events:
        for event in happened:
            if isinstance(event, Chunk) and event.committed_position > durable:
                return event.committed_position
    raise AssertionError("the turn is over")


async def opened_of(house: House, session: SessionInfo) -> OpenTurn | None:
    """Return the turn that runs on a session, as it stands in the store."""
    return (await house.sessions.load(session.name))[0].open


def text_of(events: list[Event]) -> str:
    """Return the text of a turn's events."""
    return "".join(event.text for event in events if isinstance(event, Chunk))


@pytest.mark.parametrize(("told", "position"), [(1, None), (2, len(PROMPT) + PIECE)], ids=["started", "chunk"])
@pytest.mark.parametrize("first_does", ["commits more", "comes to its end", "is left by its reader"])
async def test_whatever_the_first_server_does_there_is_one_text(house, first_does, told, position):
    """A resume delivers what is durable and continues; nothing that the first server writes is lost or doubled."""
    one, other = Replica(house), Replica(house)
    session, request_id = await house.session("tiny", seed=5), uuid.uuid4().bytes
    request = asked(session.name, request_id, PROMPT, LENGTH, chunk_chars=PIECE)
    undisturbed = await house.session("tiny", seed=5)
    expected = await house.generate(Target(session=undisturbed.name), PROMPT, LENGTH)

    first = one.turns.generate(request)
    durable = await read_beyond(first, len(PROMPT) + 2 * PIECE)
    second = other.turns.resume(ResumeRequest(session.name, request_id, position))
    events = [event for _ in range(told) for event in await anext(second)]
    with contextlib.suppress(LeaseLostError):
        if first_does == "commits more":
            await read_beyond(first, durable)
        else:
            await (read(first) if first_does == "comes to its end" else first.aclose())
            await until(lambda: not one.sessions.leases.is_running(session.name))
    events += await read(second)
    await first.aclose()

    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].state_digest) == (FinishReason.MAX_CHARS, expected.end.state_digest)
    assert text_of(events) == expected.text[(position or len(PROMPT)) - len(PROMPT) :]
    assert (await house.sessions.transcript(session.name, 0, None)).text == PROMPT + expected.text
    assert (await house.sessions.get(session.name)).turn_count == 1


async def test_a_resume_that_is_refused_takes_nothing_over(house):
    """OUT_OF_RANGE leaves the stream that has the turn alone."""
    one, other = Replica(house), Replica(house)
    session, request_id = await house.session("tiny"), uuid.uuid4().bytes
    first = one.turns.generate(asked(session.name, request_id, PROMPT, LENGTH, chunk_chars=PIECE))
    await read_beyond(first, len(PROMPT))
    with pytest.raises(PositionOutOfRangeError):
        await other.resume(session.name, request_id, len(PROMPT) + LENGTH + 1)
    end = (await read(first))[-1]
    assert isinstance(end, Finished)
    assert end.position == len(PROMPT) + LENGTH


async def test_a_resume_may_be_left_while_it_tells_what_was(house):
    """Left after its first event, again and again: it costs the turn nothing, open or cut off."""
    session, request_id = await house.session("tiny", seed=5), uuid.uuid4().bytes
    undisturbed = await house.session("tiny", seed=5)
    expected = await house.generate(Target(session=undisturbed.name), PROMPT, LENGTH)
    first = Replica(house).turns.generate(asked(session.name, request_id, PROMPT, LENGTH, chunk_chars=PIECE))
    durable = await read_beyond(first, len(PROMPT))
    for _ in range(3):
        left = Replica(house)
        second = left.turns.resume(ResumeRequest(session.name, request_id))
        assert isinstance((await anext(second))[0], Started)
        await second.aclose()
        await left.turns.drain(0)
        assert (await house.sessions.get(session.name)).position >= durable
    with contextlib.suppress(LeaseLostError):
        await first.aclose()
    again = await Replica(house).resume(session.name, request_id)
    assert (again.text, again.end.state_digest) == (expected.text, expected.end.state_digest)
    assert (await house.sessions.get(session.name)).turn_count == 1


@contextlib.asynccontextmanager
async def left_behind(house, session, *, is_over=True) -> AsyncIterator[tuple[Replica, Events]]:
    """A server that still runs a turn which another one has taken over, and usually finished."""
    one, other = Replica(house, PAUSED), Replica(house)
    request_id, has_begun = uuid.uuid4().bytes, asyncio.Event()

    async def stand_still() -> None:
        events = one.turns.generate(asked(session.name, request_id, PROMPT, LENGTH, chunk_chars=PIECE))
        try:
            await read_beyond(events, -1)
            has_begun.set()
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(LeaseLostError):
                await events.aclose()

    reader = asyncio.create_task(stand_still())
    await has_begun.wait()
    second = other.turns.resume(ResumeRequest(session.name, request_id))
    assert isinstance((await anext(second))[0], Started)
    if is_over:
        await read(second)
    assert one.sessions.leases.is_running(session.name)
    try:
        yield one, second
    finally:
        await second.aclose()
        reader.cancel()
        await asyncio.wait([reader])


async def test_a_turn_that_was_lost_does_not_keep_a_session_busy(house):
    """A server that was paused serves the next requests, whatever it believes to run."""
    session, alike = await house.session("tiny", seed=5), await house.session("tiny", seed=5)
    expected = [await house.generate(Target(session=alike.name), PROMPT, length) for length in (LENGTH, 50)]
    async with left_behind(house, session) as (one, _):
        next_turn = await one.generate(asked(session.name, uuid.uuid4().bytes, PROMPT, 50))
    assert next_turn.text == expected[1].text
    assert (await house.sessions.transcript(session.name, 0, None)).text == "".join(PROMPT + t.text for t in expected)


async def test_a_turn_that_was_lost_does_not_hold_up_a_rewind(house):
    """Nor does any other call that needs the session idle."""
    session = await house.session("tiny")
    async with left_behind(house, session) as (one, _):
        await one.history.rewind(session.name, position=len(PROMPT), etag="")
    assert (await house.sessions.get(session.name)).position == len(PROMPT)


async def test_cancel_ends_the_turn_that_took_the_place_of_ours(house):
    """Cancel at a server that was paused ends the turn wherever it runs now."""
    session = await house.session("tiny")
    async with left_behind(house, session, is_over=False) as (one, second):
        cancel = asyncio.create_task(one.turns.cancel(session.name))
        while (opened := await opened_of(house, session)) is not None and not opened.is_cancelled:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        end = (await read(second))[-1]
        info = await cancel
    assert isinstance(end, Finished)
    assert (end.reason, end.position) == (FinishReason.CANCELLED, info.position)


async def test_a_turn_that_runs_keeps_its_session_busy(house):
    """Another request is refused at once, and costs the turn nothing."""
    session, one = await house.session("tiny"), Replica(house, PAUSED)
    first = one.turns.generate(asked(session.name, uuid.uuid4().bytes, PROMPT, LENGTH, chunk_chars=PIECE))
    await read_beyond(first, -1)
    with pytest.raises(SessionBusyError):
        await one.generate(asked(session.name, uuid.uuid4().bytes, PROMPT, LENGTH))
    end = (await read(first))[-1]
    assert isinstance(end, Finished)
    assert end.position == len(PROMPT) + LENGTH


@pytest.mark.parametrize("num_calls", range(4))  # a load, two commits; and the load of the second try
@pytest.mark.parametrize("kind", ["generate", "append"])
async def test_a_request_that_two_servers_have_is_carried_out_once(house, kind, num_calls):
    """Sent again to another server, which has done it by the time the first one takes its next look at the session."""
    one, other = Replica(house), Replica(house)
    session, request_id = await house.session("tiny"), uuid.uuid4().bytes

    async def carry_out(replica: Replica) -> None:
        if kind == "append":
            await replica.turns.append(AppendRequest(session.name, PROMPT, request_id=request_id))
        else:
            await replica.generate(asked(session.name, request_id, PROMPT, PIECE))

    one.way.before_call = lambda: carry_out(other) if one.way.num_calls == num_calls else None
    with contextlib.suppress(SessionBusyError, LeaseLostError):  # the client sends it once more
        await carry_out(one)
    await carry_out(one)
    await carry_out(other)
    assert one.way.num_calls > num_calls
    info = await house.sessions.get(session.name)
    assert (info.turn_count, info.position) == (1, len(PROMPT) + (PIECE if kind == "generate" else 0))
