"""Owners of sessions, below the transport: one owner's are a range of names, in every store."""

import msgspec
import pytest

from elman_server.domain.errors import CorruptRecordError, InvalidFieldError, SessionNotFoundError
from elman_server.domain.owner import key_of
from elman_server.domain.requests import Creation
from elman_server.models.registry import Models
from elman_server.sessions import records
from elman_server.sessions.lifetimes import Lifetimes
from elman_server.sessions.service import Sessions
from elman_server.sessions.session import Expiration, Filter
from elman_server.sessions.stores import MemoryStore, SqliteStore, Store
from tests.server.sessions.test_service import model

OWNERS = ("", "alice", "alice-", "alice/bob", "Ä {x}\0")


def sessions_of(store: Store) -> Sessions:
    """Return the sessions in a store."""
    return Sessions(store, Models([model()]), Lifetimes(3600, 86400))


async def make(sessions: Sessions, owner: str, session_id: str, request_id: bytes = b"") -> str:
    """Make a session; return its key."""
    creation = Creation(request_id, owner=owner)
    info = await sessions.create(
        model=model().name,
        version=None,
        session_id=session_id,
        seed=1,
        expiration=Expiration(),
        labels={},
        creation=creation,
    )
    return info.name


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_list_has_one_owners_sessions(tmp_path, kind):
    """In pages of any size, in order, whoever else has some; and a token of one owner is none of another's."""
    store: Store = MemoryStore(1000, 2**30) if kind == "memory" else SqliteStore(tmp_path / "s.db", 1000)
    sessions = sessions_of(store)
    made = {owner: [await make(sessions, owner, f"same-{number}") for number in range(5)] for owner in OWNERS}
    for owner in OWNERS:
        for size in (1, 2, 5, 7):
            found, token = [], ""
            while True:
                page = await sessions.list(page_size=size, page_token=token, filter=Filter(owner=owner))
                found += [info.name for info in page.sessions]
                token = page.next_page_token
                if not token:
                    break
            assert found == made[owner]
    token = (await sessions.list(page_size=1, page_token="", filter=Filter(owner="alice"))).next_page_token
    for owner in ("", "alice-"):
        with pytest.raises(InvalidFieldError, match="was not made for this list"):
            await sessions.list(page_size=1, page_token=token, filter=Filter(owner=owner))
    assert await sessions.delete_all(Filter(owner="alice")) == 5
    left = [await sessions.list(page_size=0, page_token="", filter=Filter(owner=owner)) for owner in OWNERS]
    assert [len(page.sessions) for page in left] == [5, 0, 5, 5, 5]
    await store.close()


async def test_a_repeated_request_is_its_owners():
    """Two owners who use one request id make two sessions."""
    sessions = sessions_of(MemoryStore(10, 2**30))
    one, again, other = [await make(sessions, owner, "", b"r" * 16) for owner in ("alice", "alice", "bob")]

    assert one == again != other


async def test_a_record_under_anothers_key_is_not_told(tmp_path):
    """Somebody who can write to the store cannot give a session to another owner; a record of before is nobody's."""
    store = SqliteStore(tmp_path / "s.db", 10)
    sessions = sessions_of(store)
    key = await make(sessions, "alice", "abcd")
    stored = await store.load(key)
    head = records.decode(stored.head, records.Head, key)
    for other in ("abcd", key_of("bob", "abcd")):
        for copy, error in ((stored.head, "belongs elsewhere"), (records.encode(head, other), "another owner")):
            await store.create(other, copy, stored.expires)
            with pytest.raises(CorruptRecordError, match=error):
                await sessions.get(other)
            await store.delete(other, None)
    await store.create("before", records.encode(msgspec.structs.replace(head, owner=""), "before"), stored.expires)
    assert (await sessions.get("before")).name == "before"
    with pytest.raises(SessionNotFoundError, match=r"^sessions/before does not exist"):
        await sessions.get(key_of("alice", "before"))
    await store.close()
