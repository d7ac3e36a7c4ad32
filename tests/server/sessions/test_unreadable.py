"""Sessions whose record cannot be read: they hide no other, and they can be deleted."""

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


async def test_an_unreadable_record_hides_no_other(tmp_path):
    """Damaged, or with a key that is missing, it is listed by its name; reading it is an error, deleting it is none."""
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

    page = await now.list(page_size=0, page_token="", filter=Filter())
    assert [(info.name, info.status) for info in page.sessions] == [
        ("abcd", SessionStatus.ACTIVE),
        ("damaged", SessionStatus.UNREADABLE),
        ("keyless", SessionStatus.UNREADABLE),
        ("wxyz", SessionStatus.ACTIVE),
    ]
    assert page.sessions[1].expire_time == page.sessions[0].expire_time
    filtered = await now.list(page_size=0, page_token="", filter=Filter(labels={"a": "wxyz"}))
    assert [info.name for info in filtered.sessions] == ["wxyz"]
    for name in ("damaged", "keyless"):
        with pytest.raises(CorruptRecordError):
            await now.get(name)
        await now.delete(name, etag="")
        with pytest.raises(SessionNotFoundError):
            await now.get(name)
    page = await now.list(page_size=0, page_token="", filter=Filter())
    assert [info.name for info in page.sessions] == ["abcd", "wxyz"]
    await plain.close()
