"""What every store does: one suite, run over all of them; `conftest.STORES` names them."""

import asyncio

import pytest

from elman_server.domain.errors import (
    RevisionMismatchError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
)
from tests.clock import START
from tests.server.sessions.stores.stores import LIVES, end_of, names


async def test_a_session_is_kept(store):
    """What was created is loaded, and has no segments yet."""
    revision = await store.create("abcd", b"head", LIVES)
    stored = await store.load("abcd")
    assert (stored.head, stored.revision, stored.expires) == (b"head", revision, LIVES)
    assert await store.segments("abcd") == []


async def test_a_name_is_taken_once(store):
    """The second create is refused and changes nothing."""
    revision = await store.create("abcd", b"first", LIVES)
    with pytest.raises(SessionExistsError) as refused:
        await store.create("abcd", b"second", LIVES)
    assert refused.value.resource == "sessions/abcd"
    assert (await store.load("abcd")).head == b"first"
    assert (await store.load("abcd")).revision == revision


async def test_a_commit_needs_the_current_revision(store):
    """Of two writers that saw the same session one wins; the other is refused and has changed nothing."""
    first = await store.create("abcd", b"0", LIVES)
    second = await store.commit("abcd", first, b"1", LIVES, [b"s1"])
    assert second > first
    with pytest.raises(RevisionMismatchError):
        await store.commit("abcd", first, b"2", LIVES, [b"s2"])
    assert (await store.load("abcd")).head == b"1"
    assert await store.segments("abcd") == [b"s1"]


async def test_a_clock_that_is_set_expires_nothing(store, clock):
    """Forward by a day and back, before and after a session is written: it lives for its hour, and for no two days."""
    await store.create("early", b"0", LIVES)
    for ahead in (86400.0, -86400.0, 0.0):
        clock.ahead = ahead
        clock.now += 1000
        await store.load("early")
        await store.create(f"late-{ahead:.0f}", b"0", clock() + 3600)
        await store.load("early")
    clock.now += 2 * 86400.0
    for name in ("early", "late-0", "late--86400"):
        assert await end_of(store, name) is SessionExpiredError


async def test_segments_are_only_added(store):
    """Commits add at the end, or nothing; what was there stays."""
    revision = await store.create("abcd", b"0", LIVES)
    seen: list[bytes] = []
    for number in range(20):
        added = [b"%d-%d" % (number, index) for index in range(number % 3)]
        revision = await store.commit("abcd", revision, b"h", LIVES, added, place=len(seen))
        after = list(await store.segments("abcd"))
        assert after == seen + added
        seen = after
    seen.clear()  # a caller's list is the caller's
    assert len(await store.segments("abcd")) == 19


async def test_a_session_may_begin_with_segments(store):
    """A fork and an import bring their past along, and continue from there."""
    revision = await store.create("abcd", b"0", LIVES, [b"a", b"b"])
    assert await store.segments("abcd") == [b"a", b"b"]
    await store.commit("abcd", revision, b"1", LIVES, [b"c"], place=2)
    assert await store.segments("abcd") == [b"a", b"b", b"c"]


async def test_a_commit_may_drop_the_newest_segments(store):
    """A rewind keeps the oldest segments and adds its own, in one step; a stale one drops nothing."""
    for keep, kept in ((None, b"abc"), (5, b"abc"), (3, b"abc"), (2, b"ab"), (1, b"a"), (0, b"")):
        name = f"keep-{keep}"
        first = await store.create(name, b"0", LIVES, [b"a", b"b", b"c"])
        revision = await store.commit(name, first, b"1", LIVES, [b"x", b"y"], keep=keep, place=len(kept))
        expected = [*(bytes([byte]) for byte in kept), b"x", b"y"]
        assert await store.segments(name) == expected
        with pytest.raises(RevisionMismatchError):
            await store.commit(name, first, b"1", LIVES, keep=0)
        assert await store.segments(name) == expected
        await store.commit(name, revision, b"2", LIVES, keep=len(kept))
        assert await store.segments(name) == expected[:-2]


async def test_segments_are_read_by_index(store):
    """A part of a long past can be read alone; what lies beyond the end is not there."""
    segments = [b"a", b"b", b"c", b"d"]
    await store.create("abcd", b"0", LIVES, segments)
    for start, end in ((0, None), (1, None), (1, 3), (0, 0), (2, 2), (3, 1), (3, 9), (4, None), (9, 12)):
        assert await store.segments("abcd", start, end) == segments[start:end]


async def test_a_deleted_session_is_unknown(store):
    """Deleted and never made are the same to everybody."""
    await store.create("abcd", b"0", LIVES)
    await store.delete("abcd", None)
    assert await end_of(store, "abcd") is SessionNotFoundError
    assert await end_of(store, "never") is SessionNotFoundError
    with pytest.raises(SessionNotFoundError):
        await store.delete("abcd", None)
    with pytest.raises(SessionNotFoundError):
        await store.commit("abcd", 1, b"", LIVES)
    with pytest.raises(SessionNotFoundError):
        await store.segments("abcd")


async def test_delete_may_need_the_current_revision(store):
    """A stale revision deletes nothing."""
    first = await store.create("abcd", b"0", LIVES)
    second = await store.commit("abcd", first, b"1", LIVES)
    with pytest.raises(RevisionMismatchError):
        await store.delete("abcd", first)
    await store.delete("abcd", second)
    assert await names(store) == []


async def test_a_revision_never_comes_back(store, monkeypatch):
    """An etag of a deleted session does not fit the one made later under its name, however often that is changed."""
    monkeypatch.setattr("time.time_ns", lambda: 12345)  # a clock that stands still
    seen = set()
    for _ in range(5):
        revision = await store.create("abcd", b"0", LIVES)
        for _ in range(5):
            assert revision not in seen
            seen.add(revision)
            revision = await store.commit("abcd", revision, b"1", LIVES, [b"s"])
        seen.add(revision)
        await store.delete("abcd", None)
    assert len(seen) == 30


async def test_a_new_session_under_an_old_name_is_empty(store):
    """Nothing of a deleted session is left."""
    revision = await store.create("abcd", b"old", LIVES)
    await store.commit("abcd", revision, b"old", LIVES, [b"old"])
    await store.delete("abcd", None)
    await store.create("abcd", b"new", LIVES)
    assert (await store.load("abcd")).head == b"new"
    assert await store.segments("abcd") == []


async def test_an_expired_session_is_told_apart(store, clock):
    """From its time on a session is reported as expired, not as unknown, by every call."""
    revision = await store.create("abcd", b"0", START + 10)
    clock.now = START + 9.9
    assert (await store.load("abcd")).revision == revision
    clock.now = START + 10
    assert await end_of(store, "abcd") is SessionExpiredError
    for call in (store.commit("abcd", revision, b"", LIVES), store.delete("abcd", None), store.segments("abcd")):
        with pytest.raises(SessionExpiredError):
            await call


async def test_a_commit_moves_the_expiry(store, clock):
    """The last commit says when, later or sooner."""
    revision = await store.create("late", b"0", START + 10)
    await store.commit("late", revision, b"0", START + 100)
    revision = await store.create("soon", b"0", START + 100)
    await store.commit("soon", revision, b"0", START + 10)
    clock.now = START + 50
    for number in range(40):  # work that lets the store forget what is over
        await store.create(f"other-{number}", b"0", LIVES)
    assert (await store.load("late")).expires == START + 100
    assert await end_of(store, "soon") is SessionExpiredError


async def test_an_expired_name_is_free(store, clock):
    """A name may be used again after its session expired, and the new session remains."""
    await store.create("abcd", b"old", START + 1)
    clock.now += 2
    await store.create("abcd", b"new", LIVES)
    assert (await store.load("abcd")).head == b"new"


async def test_pages_are_in_name_order(store):
    """Pages walk all names once, whatever the page size, and hold what `load` gives."""
    chosen = [f"{number * 7919 % 1000:04}" for number in range(50)]
    for name in chosen:
        await store.create(name, name.encode(), LIVES)
    for limit in (1, 7, 50, 1000):
        assert await names(store, limit) == sorted(chosen)
    for name, stored in await store.page("", 1000):
        assert stored == await store.load(name)


async def test_deletes_and_creates_between_pages_skip_nothing(store):
    """A session that exists all the time is listed once, even if the name that a page ended with was removed."""
    for number in range(0, 100, 2):
        await store.create(f"{number:04}", b"", LIVES)
    found, after = [], ""
    while page := await store.page(after, 7):
        found += [name for name, _ in page]
        after = found[-1]
        await store.delete(after, None)
        await store.create(f"{int(found[0]) + 1:04}", b"", LIVES) if len(found) == 7 else None
    assert found == [f"{number:04}" for number in range(0, 100, 2)]


async def test_expired_sessions_may_be_listed_but_not_loaded(store, clock):
    """A list shows expired sessions that the store still has, with the moment at which each expired."""
    await store.create("abcd", b"0", START + 1)
    clock.now += 5
    assert [(name, stored.expires) for name, stored in await store.page("", 10)] in ([], [("abcd", START + 1)])
    assert await end_of(store, "abcd") is SessionExpiredError


async def test_a_session_in_use_does_not_expire(store, clock):
    """A turn that takes longer than the session's time can still be committed, and then has its new time."""
    store.in_use = lambda name: name == "busy"
    revision = await store.create("busy", b"0", START + 1, [b"r"])
    await store.create("idle", b"0", START + 1)
    clock.now += 5
    for number in range(40):
        await store.create(f"other-{number}", b"0", LIVES)
    assert await store.segments("busy") == [b"r"]
    with pytest.raises(SessionExistsError):
        await store.create("busy", b"2", LIVES)
    await store.commit("busy", revision, b"1", START + 20, [b"s"])
    store.in_use = lambda _: False
    assert (await store.load("busy")).head == b"1"
    assert await end_of(store, "idle") is SessionExpiredError
    clock.now = START + 20
    assert await end_of(store, "busy") is SessionExpiredError


async def test_heads_of_every_size_are_kept(store):
    """Any bytes come back as they were, larger or smaller than those before."""
    revision = await store.create("abcd", b"x" * 9000, LIVES)
    for size in (0, 100_000, 1, 8181, 8180, 4091, 4090, 4089):
        head = bytes(number % 256 for number in range(size))
        revision = await store.commit("abcd", revision, head, LIVES, [head], keep=0)
        assert (await store.load("abcd")).head == head
        assert await store.segments("abcd") == [head]
        await store.create(f"of-{size}", head, LIVES)
        assert (await store.page("of", 1000))[-1][1] == await store.load(max(await names(store)))


async def test_many_writers_lose_nothing(store):
    """Of twenty that commit at once to one session each wins in its turn; every segment is there once."""
    await store.create("abcd", b"0", LIVES)

    async def write(number: int) -> None:
        while True:
            stored = await store.load("abcd")
            try:
                place = int(stored.head)
                await store.commit("abcd", stored.revision, b"%d" % (place + 1), LIVES, [b"%d" % number], place=place)
            except RevisionMismatchError:
                continue
            return

    await asyncio.gather(*(write(number) for number in range(20)))
    assert sorted(map(int, await store.segments("abcd"))) == list(range(20))


# Of those that last


async def test_what_was_kept_is_there_after_a_restart(make_store, clock, request):
    """Another process sees sessions, segments and expired names as they were, and continues the revisions."""
    if "[memory]" in request.node.name:
        pytest.skip("memory ends with its process")
    first = make_store()
    revision = await first.create("abcd", b"0", LIVES)
    revision = await first.commit("abcd", revision, b"1", LIVES, [b"a", b"b"])
    await first.create("over", b"0", START + 1)
    await first.close()
    clock.now += 5
    second = make_store()
    assert (await second.load("abcd")).head == b"1"
    assert (await second.load("abcd")).revision == revision
    assert await second.segments("abcd") == [b"a", b"b"]
    assert await end_of(second, "over") is SessionExpiredError
    assert await second.commit("abcd", revision, b"2", LIVES) > revision
    await second.close()
