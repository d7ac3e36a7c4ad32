"""Sessions whose record cannot be read: they hide no other, and they can be deleted."""

from collections.abc import AsyncIterator

import pytest

from elman_server.domain.errors import CorruptRecordError, SessionNotFoundError
from elman_server.sessions.lifetimes import Lifetimes
from elman_server.sessions.service import Sessions
from elman_server.sessions.session import Expiration, Filter, SessionStatus
from elman_server.sessions.stores import SqliteStore
from elman_server.sessions.stores.sealed import SealedStore
from tests.clock import Clock
from tests.server.sessions.test_service import Rest

OLD, NEW = bytes(32), bytes(range(32))


@pytest.fixture
async def sessions(tmp_path) -> AsyncIterator[Sessions]:
    """Sessions on a disk: two that are intact, one whose record is damaged, and one whose key was removed."""
    clock = Clock()
    plain = SqliteStore(tmp_path / "sessions.db", 100, clock)
    models = Rest().models
    before, now = (
        Sessions(SealedStore(plain, [key]), models, Lifetimes(100, 1000), clock)  # one key after the other
        for key in (OLD, NEW)
    )
    for name, sessions in (("abcd", now), ("damaged", now), ("keyless", before), ("wxyz", now)):
        await sessions.create(
            model="letters", version=None, session_id=name, seed=1, expiration=Expiration(), labels={"a": name}
        )
    damaged = await plain.load("damaged")
    await plain.commit("damaged", damaged.revision, damaged.head[:-1], damaged.expires)
    yield now
    await plain.close()


async def listed(sessions: Sessions, which: Filter = Filter()) -> list[tuple[str, SessionStatus]]:  # noqa: B008  frozen
    """Return the names and states of a list."""
    page = await sessions.list(page_size=0, page_token="", filter=which)
    return [(info.name, info.status) for info in page.sessions]


async def test_an_unreadable_record_hides_no_other(sessions):
    """Damaged, or with a key that is missing, it is listed by its name and state, and by no filter of what it held."""
    unreadable = [("damaged", SessionStatus.UNREADABLE), ("keyless", SessionStatus.UNREADABLE)]
    assert await listed(sessions) == [
        ("abcd", SessionStatus.ACTIVE),
        *unreadable,
        ("wxyz", SessionStatus.ACTIVE),
    ]
    assert await listed(sessions, Filter(status=SessionStatus.UNREADABLE)) == unreadable
    assert await listed(sessions, Filter(status=SessionStatus.ACTIVE, model="letters")) == [
        ("abcd", SessionStatus.ACTIVE),
        ("wxyz", SessionStatus.ACTIVE),
    ]
    assert await listed(sessions, Filter(labels={"a": "damaged"})) == []
    page = await sessions.list(page_size=0, page_token="", filter=Filter())
    assert page.sessions[1].expire_time == page.sessions[0].expire_time


async def test_an_unreadable_session_can_be_deleted(sessions):
    """Reading it is data loss, deleting it is not, and then it does not exist."""
    for name in ("damaged", "keyless"):
        with pytest.raises(CorruptRecordError):
            await sessions.get(name)
        await sessions.delete(name, etag="")
        with pytest.raises(SessionNotFoundError):
            await sessions.get(name)
    assert await listed(sessions) == [("abcd", SessionStatus.ACTIVE), ("wxyz", SessionStatus.ACTIVE)]


async def test_many_are_deleted_beside_an_unreadable_one(sessions):
    """A delete by filter is not stopped by what it cannot read, and takes that along where the filter keeps it."""
    assert await sessions.delete_all(Filter(labels={"a": "wxyz"})) == 1
    assert await sessions.delete_all(Filter(status=SessionStatus.UNREADABLE)) == 2
    assert await listed(sessions) == [("abcd", SessionStatus.ACTIVE)]
