"""Turns that are closed while they are being opened: wherever that is, the server is left with nothing of them."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from elman_client import AsyncClient, AsyncSession, Client, ElmanError, Session
from tests.client.fake_server import FakeServer

_LINES_BETWEEN, _STEPS_BETWEEN, _MAX_STEPS = 13, 7, 100
_OPTIONS: Any = {"max_chars": 400, "timeout": 20}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server that is at a turn for a second."""
    with FakeServer() as running:
        running.servicer.seconds_per_chunk = 0.01
        yield running


def _generated(session: Session) -> tuple[Iterator[Any], Callable[[], None]]:
    turn = session.generate("ab", **_OPTIONS)
    return turn.events(), turn.close


def _said(session: Session) -> tuple[Iterator[Any], Callable[[], None]]:
    chat = session.chat(timeout=20)

    def events() -> Iterator[Any]:
        chat.say("ab", max_chars=400)
        yield from chat.events()

    return events(), chat.close


@pytest.mark.parametrize("begin", [_generated, _said])
def test_another_thread_may_close_at_any_line(server, begin):
    """Each time a few lines later, from the first one to the first event; the turn before was just left, too."""
    with Client(server.target, retry_seconds=0) as client:
        for line in range(0, 10_000, _LINES_BETWEEN):
            session = client.create_session("tiny", session_id=f"at-{line}")
            next(left := session.generate("a", max_chars=400))
            left.close()
            events, close = begin(session)
            reader = _Reader(events, line, close)
            reader.start()
            reader.join(20)
            assert not reader.is_alive()
            close()

            assert list(session.generate("!", max_chars=1))
            assert server.servicer.memories[session.name].text[5:-1] == "!"
            if not reader.has_closed:
                break
        assert line > 100


class _Reader(threading.Thread):
    """Takes the first event; at one of the client's lines before that, another thread closes the turn."""

    def __init__(self, events: Iterator[Any], line: int, close: Callable[[], None]) -> None:
        super().__init__()
        self._events, self._line, self._close = events, line, close
        self._num_lines = 0

    @property
    def has_closed(self) -> bool:
        """Whether there was such a line."""
        return self._num_lines > self._line

    def run(self) -> None:
        """Read."""
        sys.settrace(self._trace)
        try:
            next(self._events, None)
        except ElmanError as error:
            if "closed" not in error.message:
                raise
        finally:
            sys.settrace(None)

    def _trace(self, frame: Any, event: str, _: Any) -> Any:
        if "elman_client" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self._num_lines += 1
            if self._num_lines == self._line + 1:
                closer = threading.Thread(target=self._close)
                closer.start()
                closer.join()
        return self._trace


def _generated_there(session: AsyncSession) -> tuple[AsyncIterator[Any], Callable[[], Any]]:
    turn = session.generate("ab", **_OPTIONS)
    return turn.events(), turn.aclose


def _said_there(session: AsyncSession) -> tuple[AsyncIterator[Any], Callable[[], Any]]:
    chat = session.chat(timeout=20)

    async def events() -> AsyncIterator[Any]:
        await chat.say("ab", max_chars=400)
        async for event in chat.events():
            yield event

    return events(), chat.aclose


@pytest.mark.parametrize("begin", [_generated_there, _said_there])
async def test_another_task_may_close_at_any_step(server, begin):
    """Each time a few turns of the event loop later."""
    async with AsyncClient(server.target, retry_seconds=0) as client:
        for num_steps in range(0, _MAX_STEPS, _STEPS_BETWEEN):
            session = await client.create_session("tiny", session_id=f"at-{num_steps}")
            await anext(left := session.generate("a", max_chars=400))
            await left.aclose()
            events, close = begin(session)

            async def read(events: AsyncIterator[Any] = events) -> None:
                try:
                    await anext(events, None)
                except ElmanError as error:
                    if "closed" not in error.message:
                        raise

            reader = asyncio.create_task(read())
            for _ in range(num_steps):
                await asyncio.sleep(0)
            await close()
            async with asyncio.timeout(20):
                await reader

            assert [text async for text in session.generate("!", max_chars=1)]
            assert server.servicer.memories[session.name].text[5:-1] == "!"
