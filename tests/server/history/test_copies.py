"""Copies of sessions: made all or not at all, and never beyond a fixed moment."""

import asyncio
from collections.abc import Sequence

import pytest

from elman_server.domain.errors import InvalidFieldError, SessionExpiredError
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


async def test_a_fork_that_is_cancelled_leaves_none():
    """Cut off at any of its sessions, even within the store, a call leaves no session that nobody knows."""
    for stop_at in (1, 3):
        rest = Rest()
        await rest.create("abcd")
        create, arrived, gate = rest.store.create, asyncio.Event(), asyncio.Event()
        num_created = 0

        async def slow(name: str, head: bytes, expires: float, segments: Sequence[bytes] = ()) -> int:
            nonlocal num_created
            num_created += 1
            if num_created == stop_at:  # noqa: B023  called within the round
                arrived.set()  # noqa: B023
                await gate.wait()  # noqa: B023
            return await create(name, head, expires, segments)  # noqa: B023

        rest.store.create = slow  # type: ignore[method-assign]
        fork = asyncio.create_task(history_of(rest).fork("abcd", position=None, count=5))
        await arrived.wait()
        fork.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fork
        gate.set()
        async with asyncio.timeout(60):
            while await names(rest) != ["abcd"] or num_created < stop_at:  # noqa: ASYNC110  nothing to wait on
                await asyncio.sleep(0)
        for _ in range(100):  # nothing more comes
            await asyncio.sleep(0)
        assert (await names(rest), num_created) == (["abcd"], stop_at)


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
