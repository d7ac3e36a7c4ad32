"""Streams that are left early: the session keeps exactly what its reader has, and the next call just works."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from elman_client import AsyncClient, Client, DeadlineExceededError, FinishReason, OnAbort, Session, Started
from tests.client.fake_memory import SessionState

_LEFT_OPEN = 30


async def _read(generation: Any, num_pieces: int) -> str:
    text = ""
    for _ in range(num_pieces):
        text += await anext(generation)
    return text


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes by itself."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


@pytest.fixture
def memory(session, server) -> SessionState:
    """What the server has of the session."""
    found: SessionState = server.servicer.memories[session.name]
    return found


@pytest.mark.parametrize("num_pieces", [0, 1, 3])
@pytest.mark.parametrize("is_finished", [False, True])
async def test_the_session_keeps_what_its_reader_took(session, memory, server, num_pieces, is_finished):
    """However far ahead the server is, and even if its turn has finished."""
    server.servicer.seconds_per_chunk = 0 if is_finished else 0.01
    generation = session.generate("ab", max_chars=40)
    text = await _read(generation, num_pieces)
    if num_pieces and is_finished:
        await _until(memory.rest.is_set)
    await generation.aclose()

    assert (await session.transcript()).text == ("ab" + text if text else "")


async def test_a_turn_that_only_began_leaves_nothing(session, memory):
    """Its reader has the start and no text: the prompt is taken back, too."""
    generation = session.generate("ab", max_chars=40)
    assert isinstance(await anext(generation.events()), Started)
    await _until(memory.rest.is_set)
    await generation.aclose()

    assert (await session.transcript()).text == ""


async def test_a_turn_that_is_to_leave_nothing_leaves_nothing(session, memory):
    """ROLLBACK says so, wherever the reader was."""
    generation = session.generate("ab", max_chars=40, on_abort=OnAbort.ROLLBACK)
    await anext(generation)
    await _until(memory.rest.is_set)
    await generation.aclose()

    assert (await session.transcript()).text == ""


async def test_another_object_of_the_session_is_not_busy(client, session, server):
    """The page that stops a turn and the one that asks for the next have Session objects of their own."""
    server.servicer.seconds_per_chunk, server.servicer.seconds_to_settle = 0.01, 0.1
    for _ in range(3):
        generation = session.generate("a", max_chars=400)
        await _read(generation, 2)
        await generation.aclose()
        await _read(client.session("mine").generate("b", max_chars=4), 1)


async def test_a_chat_that_is_left_keeps_what_its_reader_took(client, session, memory, server):
    """And an append right after it is not busy."""
    server.servicer.seconds_per_chunk, server.servicer.seconds_to_settle = 0.01, 0.1
    async with session.chat() as chat:
        await chat.say("a", max_chars=400)
        events = chat.events()
        assert isinstance(await anext(events), Started)
        text = "".join([(await anext(events)).text for _ in range(4)])
    appended = await client.session("mine").append("!")

    assert memory.text == "a" + text + "!"
    assert appended.session.position == len(memory.text)


async def test_a_turn_that_is_dropped_is_left(session, memory, server):
    """Nobody closes it: the object goes, and the session keeps what was read."""
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("a", max_chars=400)
    text = await _read(generation, 2)
    del generation
    gc.collect()

    assert (await session.transcript()).text == "a" + text
    assert memory.turns[-1].end == 1 + len(text)


async def test_a_closed_client_leaves_its_turns(connect, server):
    """The end of a ``with`` around the client ends the turns in it, at what was read."""
    server.servicer.seconds_per_chunk = 0.01
    async with connect(server.target) as client:
        session = await client.create_session("tiny", session_id="mine")
        generation = session.generate("a", max_chars=400)
        text = await _read(generation, 2)

    assert server.servicer.memories["sessions/mine"].text == "a" + text


def test_a_program_that_ends_leaves_its_turns(server):
    """Nobody closed the client or the generation; the process waits for the server's answer."""
    server.servicer.seconds_per_chunk = 0.01
    code = f"""
import elman_client
session = elman_client.Client({server.target!r}).create_session("tiny", session_id="mine")
generation = session.generate("a", max_chars=400)
print(next(generation), end="")
raise SystemExit
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert server.servicer.memories["sessions/mine"].text == "a" + done.stdout


def test_a_turn_is_closed_by_another_thread(server):
    """While its reader waits: the iteration ends, and the session has what the reader got."""
    server.servicer.seconds_per_chunk = 0.02
    with Client(server.target) as client:
        session = client.create_session("tiny", session_id="mine")
        for _ in range(5):
            generation, pieces = session.generate("a", max_chars=900), list[str]()
            reader = threading.Thread(target=pieces.extend, args=[generation])
            reader.start()
            time.sleep(0.1)
            generation.close()
            reader.join(20)
            assert not reader.is_alive()
            before = session.transcript().text
            assert before.endswith("".join(pieces))
            assert len(before) == session.refresh().position


async def test_a_cancelled_reader_leaves_its_turn(server):
    """By its task, by asyncio.timeout or by a TaskGroup: the next turn continues from what was read, at once."""
    server.servicer.seconds_per_chunk = 0.005
    async with AsyncClient(server.target) as client:
        session = await client.create_session("tiny", session_id="mine")
        memory, text = server.servicer.memories["sessions/mine"], ""

        async def read() -> None:
            nonlocal text
            async for piece in session.generate("!", max_chars=900):
                text += piece

        for cancelled in (_by_its_task, _by_a_timeout, _by_a_group):
            before, text = memory.text, ""
            await cancelled(read())
            await session.refresh()
            assert memory.text == before + ("!" + text if text else "")


async def _by_its_task(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])


async def _by_a_timeout(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(work, 0.05)


async def _by_a_group(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            await asyncio.sleep(0.05)
            raise ValueError


async def test_a_deadline_leaves_the_session_where_its_reader_was(session, server):
    """The client's timeout passes in the middle of a text."""
    server.servicer.seconds_per_chunk = 0.05
    generation, text = session.generate("a", max_chars=900, timeout=0.5), ""
    with contextlib.suppress(DeadlineExceededError):
        async for piece in generation:
            text += piece

    assert (await session.transcript()).text == ("a" + text if text else "")


async def test_cancel_leaves_the_reader_its_text(session, client, server):
    """Somebody else's Cancel ends the turn where the server was; its reader gets the rest."""
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("a", max_chars=900)
    text = await _read(generation, 1)
    info = await client.session("mine").cancel()
    text += "".join([piece async for piece in generation])

    assert generation.finished.finish_reason == FinishReason.CANCELLED
    assert info.position == 1 + len(text)


def test_what_is_left_open_is_freed(server):
    """Chats and generations that nobody closes keep no thread and no turn once they are dropped."""
    server.servicer.seconds_per_chunk = 0.01
    with Client(server.target) as client:
        sessions = [client.create_session("tiny", session_id=f"number-{number}") for number in range(_LEFT_OPEN)]
        before = threading.active_count()
        for session in sessions:
            _leave_open(session)
        gc.collect()
        for session in sessions:
            session.append("!")
        deadline = time.monotonic() + 30
        while threading.active_count() > before + 10 and time.monotonic() < deadline:  # gRPC's own come and go
            time.sleep(0.05)
        assert threading.active_count() <= before + 10


def _leave_open(session: Session) -> None:
    chat = session.chat()
    chat.say("a", max_chars=900)
    next(chat.events())


def test_clients_that_nobody_closes_are_freed(server):
    """A hundred of them keep no thread."""
    before = threading.active_count()
    for _ in range(100):
        Client(server.target).list_models()
    gc.collect()

    assert threading.active_count() <= before + 10
