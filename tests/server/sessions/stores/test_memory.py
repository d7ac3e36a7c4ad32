"""What only the store in memory does: its caps, and how sessions expire."""

import itertools
import tracemalloc
from collections.abc import Coroutine
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from elman_server.domain.errors import (
    QuotaError,
    SessionEvictedError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
)
from elman_server.sessions.stores import MemoryStore
from elman_server.sessions.stores import memory as memory_module
from elman_server.sessions.stores.memory import ENTRY_BYTES
from tests.clock import START, Clock
from tests.server.sessions.stores.stores import LIVES, end_of, names

_T = TypeVar("_T")


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


async def test_the_least_recently_used_makes_room(clock):
    """Past the cap the least recently used session is evicted, and its error is not that of an unknown one."""
    store = MemoryStore(3, 2**30, clock)
    for name in ("one", "two", "three"):
        await store.create(name, b"0", LIVES)
    await store.load("one")
    await store.create("four", b"0", LIVES)
    assert await names(store) == ["four", "one", "three"]
    assert await end_of(store, "two") is SessionEvictedError
    await store.create("two", b"0", LIVES)
    assert (await store.load("two")).head == b"0"
    assert await end_of(store, "three") is SessionEvictedError


async def test_the_bytes_of_all_sessions_are_capped(clock):
    """As many of the least recently used go as it takes, whether a new session or a growing one needs room."""
    store = MemoryStore(1000, 10 * (ENTRY_BYTES + 100), clock)
    revisions = [await store.create(f"s-{number}", bytes(100), LIVES) for number in range(10)]
    assert len(await names(store)) == 10
    await store.create("large", bytes(100 + 2 * (ENTRY_BYTES + 100)), LIVES)
    assert await names(store) == sorted(["large", *(f"s-{number}" for number in range(3, 10))])
    await store.commit("s-9", revisions[9], bytes(100), LIVES, [bytes(2 * ENTRY_BYTES)])
    assert await names(store) == sorted(["large", *(f"s-{number}" for number in range(5, 10))])
    assert len(await store.segments("s-9")) == 1


async def test_a_session_in_use_is_never_evicted(clock):
    """With a turn on every session a new one is refused, at once, and nothing is lost."""
    store = MemoryStore(3, 2**30, clock)
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


async def test_a_commit_is_never_refused_for_want_of_room(clock):
    """What was delivered is kept, even if every other session is in use."""
    store = MemoryStore(10, 2 * (ENTRY_BYTES + 100), clock)
    store.in_use = lambda _: True
    revision = await store.create("one", bytes(100), LIVES)
    await store.create("two", bytes(100), LIVES)
    await store.commit("one", revision, bytes(100), LIVES, [bytes(1000)])
    assert await names(store) == ["one", "two"]


async def test_a_session_larger_than_the_store_evicts_nobody(clock):
    """A session that can never fit is refused before any other is evicted for it."""
    store = MemoryStore(10, 5 * ENTRY_BYTES, clock)
    await store.create("small", b"0", LIVES)
    with pytest.raises(QuotaError):
        await store.create("large", bytes(5 * ENTRY_BYTES), LIVES)
    assert await names(store) == ["small"]


async def test_ends_are_remembered_within_bounds(clock, monkeypatch):
    """Of very many expired sessions the names of the oldest are dropped: memory stays bounded."""
    monkeypatch.setattr(memory_module, "MAX_TOMBSTONES", 10)
    store = MemoryStore(1, 2**30, clock)
    for number in range(21):
        await store.create(f"s-{number}", b"0", LIVES)
    assert len(store._ends) == 10
    assert await end_of(store, "s-5") is SessionNotFoundError
    assert await end_of(store, "s-15") is SessionEvictedError


async def test_expired_sessions_are_forgotten_a_few_at_a_time(clock):
    """The work of one call is bounded, however many have expired; in the end all are deleted without any request."""
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
    """A session that is used forever takes no more memory than its transcript, nor do sessions made and deleted."""
    store = MemoryStore(10_000, 2**30, clock)
    revision = await store.create("abcd", b"0", LIVES)
    for number in range(5000):
        revision = await store.commit("abcd", revision, b"0", LIVES + number)
    for _ in range(5000):
        await store.create("brief", b"0", LIVES)
        await store.delete("brief", None)
    assert len(store._alarms) < 200


async def test_many_sessions_take_little_more_than_their_bytes(clock):
    """R11: an idle session costs what is stored of it and at most a kilobyte."""
    head, number_of_sessions = 600, 20_000
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
        """Delete a session."""
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
        """A session in use is not evicted and does not expire."""
        assert self.busy <= set(self.store._entries)

    @invariant()
    def the_sums_are_right(self) -> None:
        """The caps are kept, the bytes add up, and every session will be looked at when its time is over."""
        entries = self.store._entries
        assert len(entries) <= 4
        assert self.store._num_bytes == sum(entry.num_bytes for entry in entries.values())
        assert set(self.store._alarms) >= {(entry.alarm, name) for name, entry in entries.items()}


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLife = Life.TestCase
