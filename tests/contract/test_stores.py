"""What every store does: one suite, run over all of them.

A store is opened by a factory that takes its caps and a clock; add a store by adding its factory to `STORES`.
"""

import itertools
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from elman_server.errors import (
    EtagMismatchError,
    QuotaError,
    SessionEvictedError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
)
from elman_server.stores import MemoryStore, Store
from elman_server.stores import memory as memory_module
from elman_server.stores.memory import ENTRY_BYTES
from tests.clock import START, Clock

_T = TypeVar("_T")

HOUR = 3600.0
LIVES = START + HOUR


@asynccontextmanager
async def memory(clock: Clock, max_sessions: int, max_bytes: int) -> AsyncIterator[MemoryStore]:
    """Open a store in memory."""
    yield MemoryStore(max_sessions, max_bytes, clock)


STORES: dict[str, Callable[[Clock, int, int], AbstractAsyncContextManager[Store]]] = {"memory": memory}


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


@pytest.fixture(params=STORES)
async def store(request, clock) -> AsyncIterator[Store]:
    """An empty store with room for what these tests keep."""
    async with STORES[request.param](clock, 10_000, 2**30) as store:
        yield store


async def names(store: Store, limit: int = 100) -> list[str]:
    """Return all names by walking the pages."""
    found, after = [], ""
    while page := await store.page(after, limit):
        found += [name for name, _ in page]
        after = found[-1]
    return found


async def end_of(store: Store, name: str) -> type[Exception]:
    """Return how a session ended: what every call on it raises."""
    with pytest.raises((SessionNotFoundError, SessionExpiredError, SessionEvictedError)) as ended:
        await store.load(name)
    assert ended.value.resource == f"sessions/{name}"
    return ended.type


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
    """Of two writers that saw the same session one wins; the other is told the etag and has changed nothing."""
    first = await store.create("abcd", b"0", LIVES)
    second = await store.commit("abcd", first, b"1", LIVES, [b"s1"])
    assert second > first
    with pytest.raises(EtagMismatchError) as refused:
        await store.commit("abcd", first, b"2", LIVES, [b"s2"])
    assert refused.value.current == f"{second:x}"
    assert (await store.load("abcd")).head == b"1"
    assert await store.segments("abcd") == [b"s1"]


async def test_segments_are_only_added(store):
    """Commits add at the end, or nothing; what was there stays."""
    revision = await store.create("abcd", b"0", LIVES)
    seen: list[bytes] = []
    for number in range(20):
        added = [b"%d-%d" % (number, index) for index in range(number % 3)]
        revision = await store.commit("abcd", revision, b"h", LIVES, added)
        after = list(await store.segments("abcd"))
        assert after == seen + added
        seen = after
    seen.clear()  # a caller's list is the caller's
    assert len(await store.segments("abcd")) == 19


async def test_a_session_may_begin_with_segments(store):
    """A fork and an import bring their past along, and go on from there."""
    revision = await store.create("abcd", b"0", LIVES, [b"a", b"b"])
    assert await store.segments("abcd") == [b"a", b"b"]
    await store.commit("abcd", revision, b"1", LIVES, [b"c"])
    assert await store.segments("abcd") == [b"a", b"b", b"c"]


@pytest.mark.parametrize(("keep", "kept"), [(None, b"abc"), (5, b"abc"), (3, b"abc"), (2, b"ab"), (1, b"a"), (0, b"")])
async def test_a_commit_may_drop_the_newest_segments(store, keep, kept):
    """A rewind keeps the oldest segments and adds its own, in one step; a stale one drops nothing."""
    first = await store.create("abcd", b"0", LIVES, [b"a", b"b", b"c"])
    revision = await store.commit("abcd", first, b"1", LIVES, [b"x", b"y"], keep=keep)
    expected = [*(bytes([byte]) for byte in kept), b"x", b"y"]
    assert await store.segments("abcd") == expected
    with pytest.raises(EtagMismatchError):
        await store.commit("abcd", first, b"1", LIVES, keep=0)
    assert await store.segments("abcd") == expected
    await store.commit("abcd", revision, b"2", LIVES, keep=len(kept))
    assert await store.segments("abcd") == expected[:-2]


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [(0, None, b"abcd"), (1, None, b"bcd"), (1, 3, b"bc"), (0, 0, b""), (2, 2, b""), (3, 9, b"d"), (4, None, b"")],
)
async def test_segments_are_read_by_index(store, start, end, found):
    """A part of a long past can be read alone; what lies beyond the end is not there."""
    await store.create("abcd", b"0", LIVES, [b"a", b"b", b"c", b"d"])
    assert await store.segments("abcd", start, end) == [bytes([byte]) for byte in found]


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
    with pytest.raises(EtagMismatchError):
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
    """At its time a session is gone as expired, not as unknown, for every call."""
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
    """A name may be taken again after its session expired, and the new one lives."""
    await store.create("abcd", b"old", START + 1)
    clock.now += 2
    await store.create("abcd", b"new", LIVES)
    assert (await store.load("abcd")).head == b"new"


async def test_pages_are_in_name_order(store):
    """Pages walk all names once, whatever the page size, and hold what `load` gives."""
    chosen = [f"{number * 7919 % 1000:04}" for number in range(250)]
    for name in chosen:
        await store.create(name, name.encode(), LIVES)
    for limit in (1, 7, 250, 1000):
        assert await names(store, limit) == sorted(chosen)
    for name, stored in await store.page("", 1000):
        assert stored == await store.load(name)


async def test_deletes_and_creates_between_pages_skip_nothing(store):
    """Whoever is there all the time is listed once, even if the name that a page ended with is gone."""
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
    """A list shows what it has not forgotten yet, with the moment at which it expired."""
    await store.create("abcd", b"0", START + 1)
    clock.now += 5
    assert [(name, stored.expires) for name, stored in await store.page("", 10)] in ([], [("abcd", START + 1)])
    assert await end_of(store, "abcd") is SessionExpiredError


# Caps. A store that keeps its sessions elsewhere may not have them.


@pytest.fixture(params=["memory"])
def capped(request, clock) -> Callable[[int, int], AbstractAsyncContextManager[Store]]:
    """Open a store with so many sessions and bytes at most."""
    return lambda max_sessions, max_bytes: STORES[request.param](clock, max_sessions, max_bytes)


async def test_the_least_recently_used_makes_room(capped):
    """Past the cap the session that nobody used for longest goes, and is told apart from an unknown one."""
    async with capped(3, 2**30) as store:
        for name in ("one", "two", "three"):
            await store.create(name, b"0", LIVES)
        await store.load("one")
        await store.create("four", b"0", LIVES)
        assert await names(store) == ["four", "one", "three"]
        assert await end_of(store, "two") is SessionEvictedError
        await store.create("two", b"0", LIVES)
        assert (await store.load("two")).head == b"0"
        assert await end_of(store, "three") is SessionEvictedError


async def test_the_bytes_of_all_sessions_are_capped(capped):
    """As many of the least recently used go as it takes, whether a new session or a growing one needs room."""
    async with capped(1000, 10 * (ENTRY_BYTES + 100)) as store:
        revisions = [await store.create(f"s-{number}", bytes(100), LIVES) for number in range(10)]
        assert len(await names(store)) == 10
        await store.create("large", bytes(100 + 2 * (ENTRY_BYTES + 100)), LIVES)
        assert await names(store) == sorted(["large", *(f"s-{number}" for number in range(3, 10))])
        await store.commit("s-9", revisions[9], bytes(100), LIVES, [bytes(2 * ENTRY_BYTES)])
        assert await names(store) == sorted(["large", *(f"s-{number}" for number in range(5, 10))])
        assert len(await store.segments("s-9")) == 1


async def test_a_session_in_use_does_not_expire(clock):
    """A turn that takes longer than the session's time can still be committed, and then has its new time."""
    store = MemoryStore(100, 2**30, clock)
    store.in_use = lambda name: name == "busy"
    revision = await store.create("busy", b"0", START + 1)
    await store.create("idle", b"0", START + 1)
    clock.now += 5
    for number in range(40):
        await store.create(f"other-{number}", b"0", LIVES)
    await store.commit("busy", revision, b"1", START + 20, [b"s"])
    store.in_use = lambda _: False
    assert (await store.load("busy")).head == b"1"
    assert await end_of(store, "idle") is SessionExpiredError
    clock.now = START + 20
    assert await end_of(store, "busy") is SessionExpiredError


async def test_a_session_in_use_is_never_evicted(capped):
    """With a turn on every session a new one is refused, at once, and nothing is lost."""
    async with capped(3, 2**30) as store:
        store.in_use = lambda name: name in {"one", "two"}
        for name in ("one", "two", "three"):
            await store.create(name, b"0", LIVES)
        await store.create("four", b"0", LIVES)
        assert await names(store) == ["four", "one", "two"]
        store.in_use = lambda _: True
        with pytest.raises(QuotaError) as refused:
            await store.create("five", b"0", LIVES)
        assert (refused.value.subject, refused.value.limit) == ("sessions", 3)
        assert await names(store) == ["four", "one", "two"]


async def test_a_commit_is_never_refused_for_want_of_room(capped):
    """What was handed over is kept, even if every other session is in use."""
    async with capped(10, 2 * (ENTRY_BYTES + 100)) as store:
        store.in_use = lambda _: True
        revision = await store.create("one", bytes(100), LIVES)
        await store.create("two", bytes(100), LIVES)
        await store.commit("one", revision, bytes(100), LIVES, [bytes(1000)])
        assert await names(store) == ["one", "two"]


async def test_a_session_larger_than_the_store_evicts_nobody(capped):
    """What can never fit is refused before anything is forgotten for it."""
    async with capped(10, 5 * ENTRY_BYTES) as store:
        await store.create("small", b"0", LIVES)
        with pytest.raises(QuotaError):
            await store.create("large", bytes(5 * ENTRY_BYTES), LIVES)
        assert await names(store) == ["small"]


async def test_ends_are_remembered_within_bounds(clock, monkeypatch):
    """Of very many expired sessions the oldest are forgotten altogether: memory stays bounded."""
    monkeypatch.setattr(memory_module, "MAX_TOMBSTONES", 10)
    store = MemoryStore(1, 2**30, clock)
    for number in range(21):
        await store.create(f"s-{number}", b"0", LIVES)
    assert len(store._ends) == 10
    assert await end_of(store, "s-5") is SessionNotFoundError
    assert await end_of(store, "s-15") is SessionEvictedError


async def test_expired_sessions_are_forgotten_a_few_at_a_time(clock):
    """The work of one call is bounded, however many are over; all go in the end without being asked for."""
    store = MemoryStore(10_000, 2**30, clock)
    for number in range(1000):
        await store.create(f"s-{number}", b"0", START + 1)
    clock.now += 2
    sizes = []
    for number in range(100):
        await store.create(f"new-{number}", b"0", LIVES)
        sizes.append(len(store._entries))
    assert all(before - after < memory_module.PURGE_STEPS for before, after in itertools.pairwise(sizes))
    assert sizes[-1] == 100
    assert store._num_bytes == 100 * (ENTRY_BYTES + 1)


async def test_many_commits_leave_nothing_behind(clock):
    """A session that is used for ever takes no more memory than its transcript, nor do sessions made and deleted."""
    store = MemoryStore(10_000, 2**30, clock)
    revision = await store.create("abcd", b"0", LIVES)
    for number in range(5000):
        revision = await store.commit("abcd", revision, b"0", LIVES + number)
    for _ in range(5000):
        await store.create("brief", b"0", LIVES)
        await store.delete("brief", None)
    assert len(store._alarms) < 200


async def test_a_hundred_thousand_sessions_take_little_more_than_their_bytes(clock):
    """R11: an idle session costs what is stored of it and at most a kilobyte."""
    head, number_of_sessions = 600, 100_000
    store = MemoryStore(number_of_sessions, 2**40, clock)
    tracemalloc.start()
    try:
        for number in range(number_of_sessions):
            await store.create(f"{number:036}", bytes(head), LIVES + number)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(await names(store, 1000)) == number_of_sessions
    assert used / number_of_sessions <= head + 1024
    assert used <= store._num_bytes  # the cap on bytes is one on memory


class Life(RuleBasedStateMachine):
    """A memory store against a dictionary, with a clock that moves in jumps."""

    NAMES = st.sampled_from([f"name-{letter}" for letter in "abcdef"])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.busy: set[str] = set()
        self.store = MemoryStore(4, 2**30, self.clock)
        self.store.in_use = self.busy.__contains__
        self.known: dict[str, tuple[int, list[bytes]]] = {}

    @staticmethod
    def run(coroutine: Coroutine[object, None, _T]) -> _T:
        """Run what never waits."""
        try:
            coroutine.send(None)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        raise AssertionError("the store waited")

    @rule(name=NAMES, life=st.integers(1, 20))
    def create(self, name: str, life: int) -> None:
        """Make a session, if there is room and the name is free."""
        try:
            revision = self.run(self.store.create(name, b"0", self.clock.now + life))
        except (SessionExistsError, QuotaError):
            return
        self.known[name] = (revision, [])

    @rule(
        name=NAMES,
        life=st.integers(1, 20),
        added=st.lists(st.binary(max_size=3), max_size=2),
        keep=st.none() | st.integers(0, 4),
    )
    def commit(self, name: str, life: int, added: list[bytes], keep: int | None) -> None:
        """Add turns, perhaps in place of the newest, if the session is still there."""
        revision, segments = self.known.get(name, (0, []))
        try:
            revision = self.run(self.store.commit(name, revision, b"1", self.clock.now + life, added, keep=keep))
        except (SessionNotFoundError, SessionExpiredError, SessionEvictedError):
            assert name not in self.busy
            return
        self.known[name] = (revision, [*segments[:keep], *added])

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """Forget a session."""
        try:
            self.run(self.store.delete(name, None))
        except (SessionNotFoundError, SessionExpiredError, SessionEvictedError):
            return
        self.busy.discard(name)

    @rule(name=NAMES)
    def use(self, name: str) -> None:
        """Begin a turn."""
        try:
            self.run(self.store.load(name))
        except (SessionNotFoundError, SessionExpiredError, SessionEvictedError):
            return
        self.busy.add(name)

    @precondition(lambda self: self.busy)
    @rule()
    def rest(self) -> None:
        """End a turn."""
        self.busy.pop()

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        """Let time go by."""
        self.clock.now += seconds

    @invariant()
    def what_is_there_is_what_was_kept(self) -> None:
        """Revision and segments are those of the last commit."""
        for name in list(self.store._entries):
            revision, segments = self.known[name]
            entry = self.store._entries[name]
            assert (entry.revision, entry.segments) == (revision, segments)

    @invariant()
    def the_busy_are_there(self) -> None:
        """A session in use is neither evicted nor does it expire."""
        assert self.busy <= set(self.store._entries)

    @invariant()
    def the_sums_are_right(self) -> None:
        """The caps are kept, the bytes add up, and every session will be looked at when its time is over."""
        entries = self.store._entries
        assert len(entries) <= 4
        assert self.store._num_bytes == sum(entry.num_bytes for entry in entries.values())
        assert set(self.store._alarms) >= {(entry.alarm, name) for name, entry in entries.items()}


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
