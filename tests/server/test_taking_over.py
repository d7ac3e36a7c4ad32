"""Turns that are resumed on another server while the first one still has them: it was slow, or was paused."""

import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
import pytest_asyncio

from elman_server.errors import LeaseLostError, PositionOutOfRangeError
from elman_server.generation import Chunk, Finished, FinishReason, Started
from elman_server.requests import ResumeRequest, Target
from tests.models import tiny_model
from tests.server.house import House
from tests.server.replicas import Replica, asked, until

PROMPT = "What is the city but the people?\n"
LENGTH = 1500
PIECE = 10  # characters of a chunk

Events = AsyncGenerator[Started | Chunk | Finished, None]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """A small model."""
    async with House([tiny_model(tmp_path_factory.mktemp("models") / "tiny.onnx", "gru", 1, 32, seed=3)]) as house:
        yield house


async def read(events: Events) -> list[Started | Chunk | Finished]:
    """Read a turn to its end."""
    return [event async for event in events]


async def read_beyond(events: Events, durable: int) -> int:
    """Read a turn until it says that it is durable beyond a position; return up to where."""
    async for event in events:
        if isinstance(event, Chunk) and event.committed_position > durable:
            return event.committed_position
    raise AssertionError("the turn is over")


def text_of(events: list[Started | Chunk | Finished]) -> str:
    """Return the text of a turn's events."""
    return "".join(event.text for event in events if isinstance(event, Chunk))


@pytest.mark.parametrize(("told", "position"), [(1, None), (2, len(PROMPT) + PIECE)], ids=["started", "chunk"])
@pytest.mark.parametrize("first_does", ["commits more", "comes to its end", "is left by its reader"])
async def test_whatever_the_first_server_does_there_is_one_text(house, first_does, told, position):
    """A resume tells what is durable and goes on; what the first server writes meanwhile is not lost, nor doubled."""
    one, other = Replica(house), Replica(house)
    session, request_id = await house.session("tiny", seed=5), uuid.uuid4().bytes
    request = asked(session.name, request_id, PROMPT, LENGTH, chunk_chars=PIECE)
    undisturbed = await house.session("tiny", seed=5)
    expected = await house.generate(Target(session=undisturbed.name), PROMPT, LENGTH)

    first = one.turns.generate(request)
    durable = await read_beyond(first, len(PROMPT) + 2 * PIECE)
    second = other.turns.resume(ResumeRequest(session.name, request_id, position))
    events = [await anext(second) for _ in range(told)]
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
        assert isinstance(await anext(second), Started)
        await second.aclose()
        await left.turns.drain(0)
        assert (await house.sessions.get(session.name)).position >= durable
    with contextlib.suppress(LeaseLostError):
        await first.aclose()
    again = await Replica(house).resume(session.name, request_id)
    assert (again.text, again.end.state_digest) == (expected.text, expected.end.state_digest)
    assert (await house.sessions.get(session.name)).turn_count == 1
