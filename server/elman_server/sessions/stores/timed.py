"""How long a store takes: a store around another one."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elman_server.process.observe.counters import COUNTERS
from elman_server.process.observe.tracing import TRACING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from elman_server.sessions.stores.base import Record, Store, Stored


class TimedStore:
    """A store whose calls are timed, those that fail too; see Store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.keeps_objects = store.keeps_objects
        self.is_shared = store.is_shared

    @property
    def in_use(self) -> Callable[[str], bool]:
        """Whether a turn runs on a session; see Store."""
        return self._store.in_use

    @in_use.setter
    def in_use(self, is_in_use: Callable[[str], bool]) -> None:
        self._store.in_use = is_in_use

    async def create(self, name: str, head: Record, expires: float, segments: Sequence[Record] = ()) -> int:
        """Keep a new session."""
        with _timed("create"):
            return await self._store.create(name, head, expires, segments)

    async def load(self, name: str) -> Stored:
        """Return a session."""
        with _timed("load"):
            return await self._store.load(name)

    async def commit(
        self,
        name: str,
        revision: int,
        head: Record,
        expires: float,
        segments: Sequence[Record] = (),
        *,
        keep: int | None = None,
        place: int = 0,
    ) -> int:
        """Replace the head and add segments."""
        with _timed("commit"):
            return await self._store.commit(name, revision, head, expires, segments, keep=keep, place=place)

    async def delete(self, name: str, revision: int | None) -> None:
        """Delete a session."""
        with _timed("delete"):
            await self._store.delete(name, revision)

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return sessions in name order."""
        with _timed("page"):
            return await self._store.page(after, limit)

    async def segments(self, name: str, start: int = 0, end: int | None = None) -> list[Record]:
        """Return a session's segments."""
        with _timed("segments"):
            return await self._store.segments(name, start, end)

    async def num_sessions(self) -> int:
        """Return how many sessions there are."""
        with _timed("num_sessions"):
            return await self._store.num_sessions()

    async def close(self) -> None:
        """Close files and connections."""
        await self._store.close()


@contextmanager
def _timed(operation: str) -> Iterator[None]:
    begin = time.monotonic()
    try:
        with TRACING.part(f"store {operation}"):
            yield
    finally:
        COUNTERS.store[operation].add(time.monotonic() - begin)
