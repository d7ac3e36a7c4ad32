"""A reader gets what it read: the turn of a reader that stopped ends exactly there, however far the model was."""

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from elman_server.domain.errors import PositionOutOfRangeError, SessionBusyError
from elman_server.domain.events import FinishReason
from elman_server.domain.requests import AppendRequest, ResumeRequest, Target
from elman_server.sessions.session import SessionInfo
from tests.models import tiny_model
from tests.server.house import House, Text, collected
from tests.server.reader import Reader
from tests.server.replicas import Replica, asked, until

PROMPT = "What is the city but the people?\n"
START = len(PROMPT)
MORE = 9000  # characters: two checkpoints and many commits

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """A model of characters and one of bytes."""
    folder = tmp_path_factory.mktemp("models")
    paths = [
        tiny_model(folder / "tiny.onnx", "gru", 1, 32, seed=3),
        tiny_model(folder / "bytes.onnx", "gru", 1, 32, seed=3, vocabulary=None, name="bytes"),
    ]
    async with House(paths) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(house: House) -> Text:
    """What a reader that never stops gets."""
    session = await house.session("tiny")
    return await house.generate(Target(session=session.name), PROMPT, MORE)


async def transcript(house: House, name: str) -> str:
    """Return all that a session has read and written."""
    return (await house.sessions.transcript(name, 0, None)).text


async def expect(house: House, info: SessionInfo, whole: Text, position: int) -> None:
    """Check that a session ends at a position, with the state of one that was never asked for more."""
    assert info.position == position
    assert await transcript(house, info.name) == (PROMPT + whole.text)[:position]
    other = await house.session("tiny")
    await house.turns.append(AppendRequest(other.name, (PROMPT + whole.text)[:position]))
    assert info.state_digest == (await house.sessions.get(other.name)).state_digest
    assert all([turn.is_state_equal async for turn in house.history.replay(info.name)])


@pytest.mark.parametrize(
    ("num_read", "is_left"),
    [
        *((number, True) for number in (0, 1, 2, 39, 40, 41, 200)),
        *((number, False) for number in (0, 4096, 4097, 9000)),
    ],
)
async def test_a_turn_ends_where_its_reader_stopped(house, whole, num_read, is_left):
    """Whether the stream was left when more was delivered, or had finished, and whatever is durable by then."""
    session, request_id = await house.session("tiny"), uuid.uuid4().bytes
    one = Replica(house)
    request = asked(session.name, request_id, PROMPT, MORE, chunk_chars=int(is_left))
    await one.generate(request, stop_after=num_read + 60 if is_left else None)

    info = await one.turns.cancel(session.name, START + num_read, request_id)

    await expect(house, info, whole, START + num_read)
    assert (info.turn_count, await one.turns.cancel(session.name, START + num_read)) == (1, info)


@pytest.mark.parametrize("num_read", [1, 57])
async def test_a_running_turn_ends_where_its_reader_is(house, whole, num_read):
    """Here and from another server, while the reader takes nothing more or reads on."""
    for is_here, is_reading in ((True, True), (True, False), (False, True)):
        session, request_id = await house.session("tiny"), uuid.uuid4().bytes
        one, two = Replica(house), Replica(house)
        reader = await Reader.of(one.turns, asked(session.name, request_id, PROMPT, 100_000, chunk_chars=1))
        if num_read > 1 or is_reading:
            reader.gate.set()
            chunks = reader.text.chunks
            await until(lambda: len(chunks) >= num_read + 100)  # noqa: B023  called before the next round
        if not is_reading:
            reader.gate.clear()

        info = await (one if is_here else two).turns.cancel(session.name, START + num_read, request_id)

        await expect(house, info, whole, START + num_read)


async def test_the_next_turn_continues_from_what_was_read(house, whole):
    """The next turn samples what it would sample if the model had never been ahead."""
    session = await house.session("tiny")
    await house.generate(Target(session=session.name), PROMPT, MORE)
    await house.turns.cancel(session.name, START + 5000)

    following = await house.generate(Target(session=session.name), "", MORE - 5000)

    assert following.text == whole.text[5000:]


@pytest.mark.parametrize("position", [START, START + 1, START + 4096, START + 5000])
async def test_a_turn_that_was_cut_can_be_resumed(house, whole, position):
    """It is the turn that was cancelled there: Resume delivers it from any position and continues to its end."""
    session, request_id = await house.session("tiny"), uuid.uuid4().bytes
    one = Replica(house)
    request = asked(session.name, request_id, PROMPT, MORE)
    await one.generate(request)
    await one.turns.cancel(session.name, position, request_id)

    again = await one.resume(session.name, request_id, position)

    assert again.text == whole.text[position - START :]
    assert (again.end.state_digest, again.end.reason) == (whole.end.state_digest, FinishReason.MAX_CHARS)
    assert (await collected(one.turns.generate(request))).text == whole.text


async def test_nothing_of_a_turn_is_kept_if_nothing_was_read(house):
    """Cut at its start a turn was never there: neither counted nor known by its request id."""
    session, request_id = await house.session("tiny"), uuid.uuid4().bytes
    before, _ = await house.turns.append(AppendRequest(session.name, "ab"))
    await collected(house.turns.generate(asked(session.name, request_id, PROMPT, 50)))

    info = await house.turns.cancel(session.name, 2, request_id)

    assert (info.position, info.turn_count, info.state_digest) == (2, 1, before.state_digest)
    assert await transcript(house, session.name) == "ab"
    again = await collected(house.turns.generate(asked(session.name, request_id, "c", 1)))
    assert again.end.position == 4


async def test_a_position_that_the_turn_does_not_have_is_refused(house):
    """OUT_OF_RANGE past the end, in or before the prompt, or if others followed; then nothing changes."""
    session, first, second = await house.session("tiny"), uuid.uuid4().bytes, uuid.uuid4().bytes
    await collected(house.turns.generate(asked(session.name, first, PROMPT, 10)))
    await collected(house.turns.generate(asked(session.name, second, "x", 10)))
    before = await house.sessions.get(session.name)
    last, end = START + 11, START + 21
    for position, request_id, valid in (
        (-1, b"", (last, end)),
        (0, second, (last, end)),
        (last - 1, b"", (last, end)),  # the start: without a name it may be the end of the turn before
        (end + 1, second, (last, end)),
        (last, first, (end, end)),
        (last - 1, first, (end, end)),
        (last, uuid.uuid4().bytes, (end, end)),
    ):
        with pytest.raises(PositionOutOfRangeError) as refused:
            await house.turns.cancel(session.name, position, request_id)
        assert (refused.value.start, refused.value.end) == valid
    assert await house.sessions.get(session.name) == before

    await house.generate(Target(session=session.name), "", 10)  # begins where the turn before ends
    with pytest.raises(PositionOutOfRangeError) as refused:
        await house.turns.cancel(session.name, end)
    assert (refused.value.start, refused.value.end) == (end + 1, end + 10)

    fresh = await house.session("tiny")
    with pytest.raises(PositionOutOfRangeError):
        await house.turns.cancel(fresh.name, 1)


async def test_an_appended_text_is_not_cut(house):
    """An Append has one end: any position within its text is refused."""
    session = await house.session("tiny")
    await house.turns.append(AppendRequest(session.name, "abc"))
    with pytest.raises(PositionOutOfRangeError):
        await house.turns.cancel(session.name, 2)
    assert (await house.turns.cancel(session.name, 3)).position == 3


async def test_a_turn_of_another_caller_continues(house):
    """Cancel with the request id of an earlier turn ends nothing that runs, here or on another server."""
    session, earlier = await house.session("tiny"), uuid.uuid4().bytes
    one, two = Replica(house), Replica(house)
    await one.generate(asked(session.name, earlier, PROMPT, 10))
    request_id = uuid.uuid4().bytes
    reader = await Reader.of(one.turns, asked(session.name, request_id, "x", 300, chunk_chars=1))

    for server in (one, two):
        assert (await server.turns.cancel(session.name, None, earlier)).position == START + 10
        with pytest.raises(SessionBusyError):
            await server.turns.cancel(session.name, START + 5, earlier)

    assert (await reader.rest()).end.reason is FinishReason.MAX_CHARS


async def test_a_byte_level_turn_is_cut_at_a_byte(house):
    """Positions count bytes there, and the text of the next turn finishes the character that was cut."""
    session = await house.session("bytes")
    text = await house.generate(Target(session=session.name), "é", 40)
    for position in range(text.end.position - 1, 2, -1):
        info = await house.turns.cancel(session.name, position)
        assert info.position == position
    again = await house.generate(Target(session=session.name), "", 39)
    assert again.end.state_digest == text.end.state_digest


async def test_a_resumed_turn_is_cut_as_a_whole(house, whole):
    """Left, resumed and left again, it is one turn: it can end before the position at which it was resumed."""
    session, request_id = await house.session("tiny"), uuid.uuid4().bytes
    one = Replica(house)
    await one.generate(asked(session.name, request_id, PROMPT, 3000, chunk_chars=1), stop_after=500)
    await one.turns.cancel(session.name, START + 400, request_id)
    await collected(one.turns.resume(ResumeRequest(session.name, request_id, START + 400)), stop_after=300)

    info = await one.turns.cancel(session.name, START + 100, request_id)

    await expect(house, info, whole, START + 100)
    assert info.turn_count == 1


@pytest.mark.parametrize("num_segments", [1, 8])
async def test_a_turn_after_many_others_is_cut_as_the_only_one_is(house, whole, monkeypatch, num_segments):
    """However few segments are read at first: states and turns before it stay, and it is found again by its id."""
    monkeypatch.setattr("elman_server.turns.cut.FIRST_TAIL", num_segments)
    session, request_id = await house.session("tiny"), uuid.uuid4().bytes
    await house.generate(Target(session=session.name), PROMPT, 5000)
    for _ in range(10):
        await house.generate(Target(session=session.name), "", 10)
    request = asked(session.name, request_id, "", 300, chunk_chars=1)
    text = await Replica(house).generate(request)
    assert PROMPT + whole.text[: 5100 + 300] == await transcript(house, session.name)

    for position in (START + 5350, START + 5101, START + 5100):
        info = await house.turns.cancel(session.name, position, request_id)
        assert (info.position, info.turn_count) == (position, 12 if position > START + 5100 else 11)
        assert await transcript(house, session.name) == (PROMPT + whole.text)[:position]
    assert all([turn.is_state_equal async for turn in house.history.replay(session.name)])
    assert (await Replica(house).generate(request)).text == text.text
