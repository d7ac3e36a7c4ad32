"""Chat over a real engine: turns one after another, and what interrupts them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from elman_server.domain.errors import (
    InvalidFieldError,
    PositionOutOfRangeError,
    SessionBusyError,
    SessionNotFoundError,
)
from elman_server.domain.events import Chunk, Finished, FinishReason, Started
from elman_server.domain.requests import GenerateRequest, StoppingRequest, StopRequest, Target
from elman_server.turns.chat import Chat
from tests.models import tiny_model
from tests.server.house import PLAIN, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = StoppingRequest(max_chars=100_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """One model."""
    async with House([tiny_model(tmp_path_factory.mktemp("models") / "tiny.onnx")]) as house:
        yield house


class Talk:
    """A caller of Chat: says things and takes down what happens."""

    def __init__(self, house: House) -> None:
        self._said: asyncio.Queue[GenerateRequest | StopRequest | StopAsyncIteration | Exception] = asyncio.Queue()
        self.events: list[Started | Chunk | Finished] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._run(Chat(house.turns, self._actions())))

    def say(self, action: GenerateRequest | StopRequest | Exception) -> None:
        """Do something."""
        self._said.put_nowait(action)

    async def end(self) -> None:
        """Say no more, and wait for the end."""
        self._said.put_nowait(StopAsyncIteration())
        await self.task

    async def has(self, kind: type[object], count: int = 1) -> None:
        """Wait for a number of events of a kind."""
        while sum(isinstance(event, kind) for event in self.events) < count:
            self._changed.clear()
            await self._changed.wait()

    @property
    def ends(self) -> list[FinishReason]:
        """Why the turns ended."""
        return [event.reason for event in self.events if isinstance(event, Finished)]

    async def _actions(self) -> AsyncIterator[GenerateRequest | StopRequest]:
        while True:
            action = await self._said.get()
            if isinstance(action, StopAsyncIteration):
                return
            if isinstance(action, Exception):
                raise action
            yield action

    async def _run(self, chat: Chat) -> None:
        async for happened in chat.events():
            self.events += happened
            self._changed.set()


def turn(name: str, prompt: str, stopping: StoppingRequest = ENDLESS) -> GenerateRequest:
    """Return a turn on a session."""
    return GenerateRequest(Target(session=name), prompt, PLAIN, stopping)


async def test_turns_follow_one_another(house):
    """Each turn that is sent after the last one has ended finishes by itself; the text is that of single turns."""
    session, single = await house.session("tiny"), await house.session("tiny")
    expected = [await house.generate(Target(session=single.name), prompt, 20) for prompt in ("ab", "", "c")]
    talk = Talk(house)
    for number, prompt in enumerate(("ab", "", "c"), 1):
        talk.say(turn(session.name, prompt, StoppingRequest(20)))
        await talk.has(Finished, number)
    await talk.end()
    assert talk.ends == [FinishReason.MAX_CHARS] * 3
    assert "".join(e.text for e in talk.events if isinstance(e, Chunk)) == "".join(text.text for text in expected)
    assert (await house.sessions.get(session.name)).state_digest == expected[-1].end.state_digest


async def test_a_new_turn_interrupts_the_running_one(house):
    """The running one is Finished as CANCELLED, with what was delivered kept, and the next one begins there."""
    session = await house.session("tiny")
    talk = Talk(house)
    talk.say(turn(session.name, "ab"))
    await talk.has(Chunk, 2)
    talk.say(turn(session.name, "cd", StoppingRequest(5)))
    await talk.has(Finished, 2)
    await talk.end()
    assert talk.ends == [FinishReason.CANCELLED, FinishReason.MAX_CHARS]
    starts = [event.start_position for event in talk.events if isinstance(event, Started)]
    ends = [event.position for event in talk.events if isinstance(event, Finished)]
    assert starts == [0, ends[0]]
    chunks = [event for event in talk.events if isinstance(event, Chunk)]
    first = "".join(chunk.text for chunk in chunks if chunk.position <= ends[0])
    second = "".join(chunk.text for chunk in chunks if chunk.position > ends[0])
    transcript = await house.sessions.transcript(session.name, 0, None)
    assert transcript.text == "ab" + first + "cd" + second


async def test_a_stop_ends_the_running_turn(house):
    """And nothing else: the session is idle, the chat continues, and a stop without a turn does nothing."""
    session = await house.session("tiny")
    talk = Talk(house)
    talk.say(StopRequest())
    talk.say(turn(session.name, "ab"))
    await talk.has(Chunk)
    talk.say(StopRequest())
    await talk.has(Finished)
    assert (await house.sessions.get(session.name)).position == talk.events[-1].position  # type: ignore[union-attr]
    talk.say(StopRequest())
    talk.say(turn(session.name, "c", StoppingRequest(3)))
    await talk.end()
    assert talk.ends == [FinishReason.CANCELLED, FinishReason.MAX_CHARS]


async def test_turns_that_come_at_once_are_each_interrupted(house):
    """Ten turns sent without waiting: nine are cut off, in order, and the last one finishes."""
    session = await house.session("tiny")
    talk = Talk(house)
    for _ in range(9):
        talk.say(turn(session.name, "a"))
    talk.say(turn(session.name, "b", StoppingRequest(7)))
    await talk.end()
    assert talk.ends == [FinishReason.CANCELLED] * 9 + [FinishReason.MAX_CHARS]
    transcript = await house.sessions.transcript(session.name, 0, None)
    assert transcript.text[: -len("b") - 7].count("a") >= 0
    assert transcript.turns[-1].end - transcript.turns[-1].prompt_end == 7


async def test_a_turn_that_fails_ends_the_chat(house):
    """An unknown session, one that is busy, or an action that cannot be read: raised, and nothing is left running."""
    for said, kind in ((turn("unknown", "a"), SessionNotFoundError), (ValueError("no message"), ValueError)):
        session = await house.session("tiny")
        talk = Talk(house)
        talk.say(turn(session.name, "ab"))
        await talk.has(Chunk)
        talk.say(said)
        with pytest.raises(kind):
            await talk.task
        assert (await house.at_rest(session.name)).turn_count == 1
    busy, talk = await house.session("tiny"), Talk(house)
    lease = house.sessions.leases.take(busy.name)
    talk.say(turn(busy.name, "ab"))
    with pytest.raises(SessionBusyError):
        await talk.task
    house.sessions.leases.release(lease)


async def test_a_chat_that_is_left_leaves_nothing_running(house):
    """Its turn is committed as far as it was delivered."""
    session = await house.session("tiny")
    talk = Talk(house)
    talk.say(turn(session.name, "ab"))
    await talk.has(Chunk)
    talk.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await talk.task
    info = await house.at_rest(session.name)
    text = "".join(event.text for event in talk.events if isinstance(event, Chunk))
    assert info.position == 2 + len(text)
    assert not house.sessions.leases.is_running(session.name)


@pytest.mark.parametrize("stopping", [ENDLESS, StoppingRequest(max_chars=300)], ids=["running", "finished"])
async def test_a_stop_keeps_what_its_caller_read(house, stopping):
    """With a position the turn ends there, whether it still runs or not; one more Finished says so."""
    session, whole = await house.session("tiny", seed=5), await house.session("tiny", seed=5)
    expected = await house.generate(Target(session=whole.name), "ab", 300)
    talk = Talk(house)
    talk.say(turn(session.name, "ab", stopping))
    await talk.has(Finished if stopping.max_chars == 300 else Chunk)
    read = next(event for event in talk.events if isinstance(event, Chunk)).position
    talk.say(StopRequest(read))
    await talk.has(Finished, 2)
    *_, last = talk.events
    assert isinstance(last, Finished)
    assert (last.reason, last.position, last.prompt_chars) == (FinishReason.CANCELLED, read, 2)
    assert last.generated_chars == read - 2
    info = await house.at_rest(session.name)
    assert (info.position, info.etag, info.state_digest) == (read, last.etag, last.state_digest)
    talk.say(turn(session.name, "", StoppingRequest(max_chars=302 - read)))
    await talk.has(Finished, 3)
    await talk.end()
    assert (await house.at_rest(session.name)).state_digest == expected.end.state_digest


@pytest.mark.parametrize(
    ("position", "error"), [(1000, PositionOutOfRangeError), (3, None), (1, PositionOutOfRangeError)]
)
async def test_a_stop_elsewhere_is_refused(house, position, error):
    """A position outside the turn ends the chat with an error, and the session is as it was."""
    session = await house.session("tiny")
    talk = Talk(house)
    talk.say(turn(session.name, "ab", StoppingRequest(max_chars=5)))
    await talk.has(Finished)
    talk.say(StopRequest(position))
    if error is None:
        await talk.end()
    else:
        with pytest.raises(error):
            await talk.end()
    assert (await house.at_rest(session.name)).position == (7 if error else position)


async def test_a_stop_with_a_position_needs_a_turn_on_a_session(house):
    """What has no session has no position to keep."""
    talk = Talk(house)
    talk.say(StopRequest(1))
    with pytest.raises(InvalidFieldError, match="needs a turn on a session"):
        await talk.end()
