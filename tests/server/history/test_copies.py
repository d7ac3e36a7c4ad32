"""Copies of sessions: made all or not at all, and never beyond a fixed moment."""

import asyncio
from typing import Any

import pytest

from elman_server.domain.errors import InvalidFieldError, SessionExpiredError
from elman_server.domain.requests import ANONYMOUS, Creation
from elman_server.history.service import History
from elman_server.sessions.session import Filter
from tests.clock import START
from tests.server.sessions.test_service import Rest


def history_of(rest: Rest) -> History:
    """Return the history of sessions without engines: none is asked at a session's end."""
    return History(rest.sessions, rest.models, {}, b"k" * 32)


async def names(rest: Rest) -> list[str]:
    """Return the sessions."""
    return [info.name for info in (await rest.sessions.list(page_size=0, page_token="", filter=Filter())).sessions]


class Slow:
    """Makes a store wait at a chosen creation."""

    def __init__(self, rest: Rest, stop_at: int) -> None:
        self._create, self._stop_at = rest.store.create, stop_at
        self.num_created = 0
        self.arrived, self.gate = asyncio.Event(), asyncio.Event()

    async def create(self, *arguments: Any) -> int:
        """Make a session, as the store does."""
        self.num_created += 1
        if self.num_created == self._stop_at:
            self.arrived.set()
            await self.gate.wait()
        return await self._create(*arguments)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
@pytest.mark.parametrize("is_repeatable", [False, True], ids=["unnamed", "named"])
async def test_a_fork_that_is_cancelled_makes_all_or_none(stop_at: int, is_repeatable: bool):  # noqa: FBT001  a parameter
    """Cut off at any of its sessions, even within the store: all with a request id, which finds them; else none."""
    rest = Rest()
    await rest.create("abcd")
    slow = Slow(rest, stop_at)
    rest.store.create = slow.create  # type: ignore[method-assign,assignment]
    creation = Creation(bytes(16), bytes(32)) if is_repeatable else ANONYMOUS
    history = history_of(rest)
    fork = asyncio.create_task(history.fork("abcd", position=None, count=5, creation=creation))
    await slow.arrived.wait()
    fork.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fork
    slow.gate.set()
    while working := [task for task in asyncio.all_tasks() if task.get_name() == "make sessions"]:
        await asyncio.wait(working)
    expected = 5 if is_repeatable else 0
    assert len(await names(rest)) == 1 + expected
    if is_repeatable:
        again = await history.fork("abcd", position=None, count=5, creation=creation)
        assert sorted(["abcd", *(info.name for info in again)]) == await names(rest)


async def test_a_fork_that_is_cancelled_and_comes_again_is_completed():
    """With a request id, what a cancelled call has made stays for the same request, which may be there already."""
    rest = Rest()
    await rest.create("abcd")
    create, arrived, gate = rest.store.create, asyncio.Event(), asyncio.Event()

    async def slow(name: str, head: Any, expires: float, segments: Any = ()) -> int:
        if name == once.part(2).key():
            arrived.set()
            await gate.wait()
        return await create(name, head, expires, segments)

    once = Creation(bytes(15) + b"\x01", b"digest")
    rest.store.create = slow  # type: ignore[method-assign]
    first = asyncio.create_task(history_of(rest).fork("abcd", position=None, count=5, creation=once))
    await arrived.wait()
    second = asyncio.create_task(history_of(rest).fork("abcd", position=None, count=5, creation=once))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    forks = await second
    for _ in range(100):  # nothing is deleted later
        await asyncio.sleep(0)
    assert [fork.name for fork in forks] == [once.part(index).key() for index in range(5)]
    assert await names(rest) == sorted(["abcd", *(fork.name for fork in forks)])


async def test_a_copy_keeps_a_fixed_moment():
    """Fork and import expire when the session does, not an idle time later."""
    rest = Rest()
    info = await rest.create("abcd", expire_time=START + 50)
    history = history_of(rest)
    snapshot = await history.export("abcd")
    rest.clock.now += 20
    (fork,) = await history.fork("abcd", position=None, count=1)
    copy = await history.restore(snapshot, "copy")
    assert [info.expire_time, fork.expire_time, copy.expire_time] == [START + 50] * 3


async def test_a_copy_of_an_idle_time_starts_it_anew():
    """Fork and import of a session with an idle time have that time before them."""
    rest = Rest()
    await rest.create("abcd", ttl=50.0)
    history = history_of(rest)
    snapshot = await history.export("abcd")
    rest.clock.now += 20
    (fork,) = await history.fork("abcd", position=None, count=1)
    copy = await history.restore(snapshot, "copy")
    assert [fork.expire_time, copy.expire_time] == [START + 70] * 2


async def test_past_its_fixed_moment_a_session_is_not_copied():
    """The error says that the session expired, not that a field of the request is wrong that is not there."""
    rest = Rest()
    await rest.create("abcd", expire_time=START + 50)
    history = history_of(rest)
    snapshot = await history.export("abcd")
    rest.store.in_use = lambda _: True  # a turn runs on it, and keeps it
    rest.clock.now += 60
    with pytest.raises(SessionExpiredError, match=r"^sessions/abcd has expired"):
        await history.fork("abcd", position=None, count=1)
    with pytest.raises(InvalidFieldError, match=r"^snapshot: is of a session that expired at 1970-01-12T13:47:30"):
        await history.restore(snapshot, "copy")
