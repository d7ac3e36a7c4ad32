"""Requests that come in slowly, and whose place a new one takes."""

import asyncio
from typing import Any

import pytest

from elman_server.domain.errors import OverloadedError
from elman_server.grpc.messages.pace import Inbox


class Incoming:
    """A call of a connection, whose message comes when the test sends it."""

    def __init__(self, inbox: Inbox, connection: str) -> None:
        self._connection = connection
        self.message: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.is_read = False
        self.received = asyncio.ensure_future(inbox.receive(self))  # type: ignore[arg-type]

    def peer(self) -> str:
        """The connection."""
        return self._connection

    async def read(self) -> bytes:
        """Wait for the message."""
        self.is_read = True
        return await self.message


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_connection_with_many_requests_loses_its_own():
    """The oldest of all is another connection's, and stays: it comes late, and is received."""
    inbox = Inbox(most=4, seconds=0.001)
    other = Incoming(inbox, "other")
    flood = [Incoming(inbox, "flood") for _ in range(10)]
    for call in flood[:3] + flood[6:]:
        with pytest.raises(OverloadedError):
            await call.received

    assert not other.received.done()
    other.message.set_result(b"late")
    assert await other.received == b"late"
    for call in flood[3:6]:  # the youngest that wait go first; nobody waits for the places of these
        call.message.set_result(b"")
        await call.received


async def test_a_new_connection_goes_first():
    """Of two connections that wait, the one that came last has the next place; then they take turns."""
    inbox = Inbox(most=1, seconds=100)
    first = Incoming(inbox, "flood")
    await settled()
    waiting = [Incoming(inbox, "flood") for _ in range(3)]
    await settled()
    waiting += [Incoming(inbox, "other") for _ in range(2)]
    await settled()

    order: list[Any] = []
    reading = first
    for _ in waiting:
        reading.message.set_result(b"")
        await reading.received
        await settled()
        (reading,) = [call for call in waiting if call.is_read and not call.received.done()]
        order.append(waiting.index(reading))
    reading.message.set_result(b"")
    await reading.received
    assert order == [4, 2, 3, 1, 0]


async def test_a_caller_who_leaves_the_queue_takes_no_place():
    """One that waits is cancelled; the place goes to the next, and at the end nothing is left."""
    inbox = Inbox(most=1, seconds=100)
    first, second, third = (Incoming(inbox, "one") for _ in range(3))
    await settled()
    third.received.cancel()
    await settled()
    first.message.set_result(b"")
    await first.received
    await settled()

    assert second.is_read
    second.message.set_result(b"x")
    assert await second.received == b"x"
