"""Servers that share one store: turns without their transport, each with a way to the store that can be cut."""
# ruff: noqa: D102  a way does what a store does

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from elman_server.domain.errors import StoreUnavailableError
from elman_server.domain.requests import GenerateRequest, ResumeRequest, SamplingRequest, StoppingRequest, Target
from elman_server.history.service import History
from elman_server.process.clock import SYSTEM
from elman_server.process.clock import Clock as SystemClock
from elman_server.sessions.lifetimes import Lifetimes
from elman_server.sessions.service import Sessions
from elman_server.sessions.stores import Store, Stored
from elman_server.sessions.transitions import Durability
from elman_server.turns.service import Turns
from tests.clock import Clock
from tests.server.house import PLAIN, House, Text, collected

QUICK: Final = Durability(lease_seconds=5.0, commit_chars=40, commit_seconds=0.02, patience_seconds=0.0)


def clock_of_now() -> Clock:
    """Return a clock that stands at this moment until the test moves it."""
    clock = Clock()
    clock.now = time.time()
    return clock


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds that no event announces."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


class Way:
    """A store as one server sees it.

    Attributes:
        is_cut: nothing comes through.
        is_deaf: what is asked is done, and the answer is lost.
        is_late: what is asked is done with the next commit, just before it.
        num_commits: that came through.
        num_calls: loads and commits.
        before_call: what happens before each of them; returns what is waited for, if anything.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.in_use = store.in_use
        self.keeps_objects, self.is_shared = store.keeps_objects, True
        self.is_cut = self.is_deaf = self.is_late = False
        self._held: Callable[[], Awaitable[int]] | None = None
        self.num_commits = self.num_calls = 0
        self.before_call: Callable[[], Awaitable[None] | None] = lambda: None

    async def create(self, name: str, head: bytes, expires: float, segments: Sequence[bytes] = ()) -> int:
        self._pass()
        return await self._store.create(name, head, expires, segments)

    async def load(self, name: str) -> Stored:
        await self._happen()
        return await self._store.load(name)

    async def commit(
        self,
        name: str,
        revision: int,
        head: bytes,
        expires: float,
        segments: Sequence[bytes] = (),
        *,
        keep: int | None = None,
        place: int = 0,
    ) -> int:
        await self._happen()
        if self.is_late:
            self.is_late = False
            self._held = partial(self._store.commit, name, revision, head, expires, segments, keep=keep, place=place)
            raise StoreUnavailableError("the store did not answer", 1.0)
        if self._held is not None:
            held, self._held = self._held, None
            await held()
        revision = await self._store.commit(name, revision, head, expires, segments, keep=keep, place=place)
        self.num_commits += 1
        if self.is_deaf:
            self.is_deaf = False
            raise StoreUnavailableError("the store did not answer", 1.0)
        return revision

    async def delete(self, name: str, revision: int | None) -> None:
        self._pass()
        await self._store.delete(name, revision)

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        self._pass()
        return await self._store.page(after, limit)

    async def segments(self, name: str, start: int = 0, end: int | None = None) -> list[bytes]:
        self._pass()
        return await self._store.segments(name, start, end)

    async def num_sessions(self) -> int:
        self._pass()
        return await self._store.num_sessions()

    async def close(self) -> None:
        """Do nothing: the store is another's."""

    async def committed(self, num_commits: int) -> None:
        """Wait until that many commits came through."""
        await until(lambda: self.num_commits >= num_commits)

    async def _happen(self) -> None:
        self._pass()
        if happens := self.before_call():
            await happens
        self.num_calls += 1

    def _pass(self) -> None:
        if self.is_cut:
            raise StoreUnavailableError("the store cannot be reached", 1.0)


class Replica:
    """One of several servers over a house's engines, and its store unless another is given."""

    def __init__(
        self,
        house: House,
        durability: Durability = QUICK,
        clock: SystemClock = SYSTEM,
        store: Store | None = None,
    ) -> None:
        self.way = Way(store or house.store)
        self.sessions = Sessions(self.way, house.models, Lifetimes(3600, 86400), clock)
        self.turns = Turns(self.sessions, house.models, house.engines, durability)
        self.history = History(self.sessions, house.models, house.engines, b"k" * 32)

    async def generate(self, request: GenerateRequest, stop_after: int | None = None) -> Text:
        """Run a turn to its end, or close it after a number of chunks."""
        return await collected(self.turns.generate(request), stop_after)

    async def resume(self, session: str, request_id: bytes, position: int | None = None) -> Text:
        """Continue a turn to its end."""
        return await collected(self.turns.resume(ResumeRequest(session, request_id, position)))


def asked(
    name: str, request_id: bytes, prompt: str, max_chars: int, sampling: SamplingRequest = PLAIN, **kwargs: object
) -> GenerateRequest:
    """Return a request for a turn on a session that can be known again."""
    stopping = kwargs.pop("stopping", StoppingRequest(max_chars))
    return GenerateRequest(Target(session=name), prompt, sampling, stopping, request_id=request_id, **kwargs)  # type: ignore[arg-type]
