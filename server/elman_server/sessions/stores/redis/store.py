"""Sessions in Redis or Valkey, one server or a cluster, for many replicas at once.

A session is two keys of one slot, `elman:{NAME}` (a hash: revision, expiry, birth, chunks of the head) and
`elman:{NAME}:s` (a list: segments), changed by one script per call. Redis deletes them itself, GRACE_SECONDS after the
session's expiry; until then every replica can still report that it expired, and a running turn can be committed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from elman_server.domain.errors import (
    CorruptRecordError,
    RevisionMismatchError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
)
from elman_server.process.clock import SYSTEM
from elman_server.sessions.stores.base import Stored
from elman_server.sessions.stores.redis.client import CHANGED, connect, is_foreign, translated
from elman_server.sessions.stores.redis.index import RedisIndex
from elman_server.sessions.stores.redis.scripts import COMMIT, CREATE, DELETE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elman_server.process.clock import Clock

GRACE_SECONDS: Final = 60.0  # more than replicas' clocks differ
SWEEP_EVERY: Final = 16  # creations
CHUNK_BYTES: Final = 4090  # of a head, in a field each: with Redis' own 6 bytes a size that its allocator has


class RedisStore:
    """A store in Redis. The `maxmemory` of Redis is its only limit.

    What Redis evicts by its own policy is reported as expired.

    Args:
        url: see `redis_client.connect`.
        timeout: seconds to wait for each answer.
        clock: by which sessions expire. Redis itself deletes them by its own.

    Attributes:
        in_use: whether a turn of this process runs on a session; such a session expires only after the grace.

    Raises:
        SettingsError: the URL cannot be honoured.
    """

    keeps_objects = False
    is_shared = True

    def __init__(self, url: str, timeout: float, clock: Clock = SYSTEM) -> None:
        self._client = connect(url, timeout)
        self._clock = clock
        self._index = RedisIndex(self._client, _key, clock)
        self._num_created = 0
        self.in_use: Callable[[str], bool] = lambda _: False

    async def create(self, name: str, head: bytes, expires: float, segments: Sequence[bytes] = ()) -> int:
        """Keep a new session; see Store."""
        with translated():
            self._num_created += 1
            if self._num_created % SWEEP_EVERY == 0:
                await self._index.sweep()
            birth = await self._index.add(name)
            word, value, *old = await self._run(CREATE, name, birth, "", *self._record(head, expires, segments))
            if word == b"exists":
                await self._index.remove(name, birth)
                raise SessionExistsError(f"sessions/{name}")
            if old[0]:
                await self._index.remove(name, old[0].decode("utf-8", "replace"))
        return int(value)

    async def load(self, name: str) -> Stored:
        """Return a session; see Store."""
        with translated():
            fields = await self._client.hgetall(_key(name))
            if not fields:
                raise await self._end(name)
        stored = _stored(fields)
        if stored.expires <= self._now(name):
            raise SessionExpiredError(f"sessions/{name}")
        return stored

    async def commit(
        self,
        name: str,
        revision: int,
        head: bytes,
        expires: float,
        segments: Sequence[bytes] = (),
        *,
        keep: int | None = None,
        place: int = 0,  # noqa: ARG002  for stores that bind segments to it
    ) -> int:
        """Replace the head and add segments; see Store."""
        with translated():
            kept = "" if keep is None else str(keep)
            answer = await self._run(COMMIT, name, str(revision), kept, *self._record(head, expires, segments))
            return int(await self._value(name, answer))

    async def delete(self, name: str, revision: int | None) -> None:
        """Delete a session; see Store."""
        with translated():
            try:
                answer = await self._run(DELETE, name, "" if revision is None else str(revision))
                birth = await self._value(name, answer)
            except Exception as error:
                if revision is not None or not (is_foreign(error) or isinstance(error, CorruptRecordError)):
                    raise
                # What another program put there cannot be read, but it can be deleted.
                await self._client.delete(_key(name), f"{_key(name)}:s")
                await self._index.remove_all(name)
                return
            await self._index.remove(name, birth.decode("utf-8", "replace"))

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return sessions in name order; see Store."""
        found: list[tuple[str, Stored]] = []
        with translated():
            while len(found) < limit:
                wanted = limit - len(found)
                names = await self._index.names(after, wanted)
                pipeline = self._client.pipeline(transaction=False)
                for name in names:
                    pipeline.hgetall(_key(name))
                # A key of another kind spoils one name; the others are still listed.
                rows = await pipeline.execute(raise_on_error=False) if names else []
                # One may have been deleted since the index was read.
                found += [(name, _shown(fields)) for name, fields in zip(names, rows, strict=True) if fields]
                if len(names) < wanted:
                    break
                after = names[-1]
        return found

    async def segments(self, name: str, start: int = 0, end: int | None = None) -> list[bytes]:
        """Return a session's segments; see Store."""
        if end is not None and end <= start:
            await self.load(name)
            return []
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hget(_key(name), "e")
            pipeline.lrange(f"{_key(name)}:s", start, -1 if end is None else end - 1)
            expires, found = await pipeline.execute()
            if expires is None:
                raise await self._end(name)
        if _number(expires) <= self._now(name):
            raise SessionExpiredError(f"sessions/{name}")
        return list(found)

    async def num_sessions(self) -> int:
        """Return how many sessions there are; see Store."""
        with translated():
            return await self._index.size()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _now(self, name: str) -> float:
        """Return the time with which a session's expiry is compared."""
        return 0.0 if self.in_use(name) else self._clock.expiry()

    def _record(self, head: bytes, expires: float, segments: Sequence[bytes]) -> list[Any]:
        """Return what the scripts write."""
        chunks = [head[at : at + CHUNK_BYTES] for at in range(0, len(head), CHUNK_BYTES)]
        to_live = max(1, int((expires - self._clock() + GRACE_SECONDS) * 1000))
        return [repr(expires), to_live, len(chunks), *chunks, *segments]

    async def _run(self, script: str, name: str, *values: Any) -> list[Any]:
        key = _key(name)
        answer: list[Any] = await self._client.eval(script, 2, key, f"{key}:s", repr(self._now(name)), *values)
        return answer

    async def _value(self, name: str, answer: list[bytes]) -> bytes:
        """Return the value of a script's reply, or raise its refusal."""
        word, value = answer
        if word == b"odd":
            raise CorruptRecordError(CHANGED)
        if word == b"missing":
            raise await self._end(name)
        if word == b"expired":
            raise SessionExpiredError(f"sessions/{name}")
        if word == b"changed":
            raise RevisionMismatchError(f"sessions/{name}")
        return value

    async def _end(self, name: str) -> SessionExpiredError | SessionNotFoundError:
        """Return how a session that does not exist ended."""
        is_known = await self._index.knows(name)
        return (SessionExpiredError if is_known else SessionNotFoundError)(f"sessions/{name}")


def _key(name: str) -> str:
    return f"elman:{{{name}}}"


def _stored(fields: dict[bytes, bytes]) -> Stored:
    """Return a session from its hash; raises CorruptRecordError."""
    # Beside revision, expiry and birth every field is a chunk.
    try:
        fields[b"b"]
        head = b"".join(fields[b"%d" % number] for number in range(len(fields) - 3))
        return Stored(head, int(fields[b"r"]), _number(fields[b"e"]))
    except (KeyError, ValueError) as error:
        raise CorruptRecordError(CHANGED) from error


def _number(text: bytes) -> float:
    """Return an expiry; raises CorruptRecordError."""
    try:
        number = float(text)
    except ValueError as error:
        raise CorruptRecordError(CHANGED) from error
    if not math.isfinite(number):
        raise CorruptRecordError(CHANGED)
    return number


def _shown(found: dict[bytes, bytes] | Exception) -> Stored:
    """Return a session as a list shows it; one that cannot be read has an empty head."""
    if isinstance(found, Exception) and not is_foreign(found):
        raise found
    try:
        return _stored({} if isinstance(found, Exception) else found)
    except CorruptRecordError:
        return Stored(b"", 0, 0.0)
