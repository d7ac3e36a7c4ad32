"""The names of all sessions in Redis, in order, which Redis does not have for its keys.

Sixteen sorted sets, by a hash of the name, hold members NAME NUL BIRTH; the birth is the session's own stamp. They
lie in other slots of a cluster than the sessions, so that no script changes both, and the index repairs itself:

- A member is added before its session is made and removed after it is deleted: every session is always listed.
- A member is *stale* if its session was deleted or has another birth. Every reader skips it, and removes it once it is
  older than a creation can take. Redis deletes expired sessions itself; every few creations some members are checked.
- As long as it is there, a stale member is the tombstone of a session that expired.
- What another program puts into a set is skipped. A set that is none any more makes the store unavailable: without it
  sessions would be missing.
"""

from __future__ import annotations

import heapq
import itertools
import re
import secrets
import zlib
from typing import TYPE_CHECKING, Final

from elman_server.sessions.stores.redis.client import index_intact, is_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from elman_server.sessions.stores.redis.client import Client

NUM_SHARDS: Final = 16
SETTLED_SECONDS: Final = 60  # a creation takes less: its calls time out before
SWEEP_MEMBERS: Final = 128
_MEMBER: Final = re.compile(rb"[!-~]+\0[0-9a-f]+-[0-9a-f]{8}")


class RedisIndex:
    """The names of all sessions.

    Args:
        key_of: the key of a session's hash, whose field `b` is its birth.
        clock: unix seconds.
    """

    def __init__(self, client: Client, key_of: Callable[[str], str], clock: Callable[[], float]) -> None:
        self._client = client
        self._key_of = key_of
        self._clock = clock
        self._shards = itertools.cycle(range(NUM_SHARDS))
        self._cursors = [b"-"] * NUM_SHARDS  # where the sweep of each set continues

    async def add(self, name: str) -> str:
        """List a session that is about to be made; return its birth."""
        birth = f"{int(self._clock()):x}-{secrets.token_hex(4)}"
        with index_intact():
            await self._client.zadd(_set_of(name), {_member(name, birth): 0})
        return birth

    async def remove(self, name: str, birth: str) -> None:
        """Remove a session from the list."""
        with index_intact():
            await self._client.zrem(_set_of(name), _member(name, birth))

    async def remove_all(self, name: str) -> None:
        """List no session of that name, whatever its birth."""
        with index_intact():
            await self._client.zremrangebylex(_set_of(name), f"[{name}\0", f"({name}\1")

    async def knows(self, name: str) -> bool:
        """Whether a session of that name was listed and has not been removed."""
        with index_intact():
            return bool(await self._client.zrangebylex(_set_of(name), f"[{name}\0", f"({name}\1", 0, 1))

    async def names(self, after: str, limit: int) -> list[str]:
        """Return up to `limit` names of sessions after `after`, in order; fewer are the last."""
        found: list[str] = []
        low = f"[{after}\1".encode() if after else b"-"
        while len(found) < limit:
            pipeline = self._client.pipeline(transaction=False)
            for shard in range(NUM_SHARDS):
                pipeline.zrangebylex(_key(shard), low, b"+", 0, limit)
            with index_intact():
                rows = await pipeline.execute()
            members = list(itertools.islice(heapq.merge(*rows), limit))
            found += [_parts(member)[0] for member in await self._living(members)]
            if len(members) < limit:
                break
            low = b"(" + members[-1]
        return found[:limit]

    async def size(self) -> int:
        """Return how many sessions are listed; some may have expired."""
        pipeline = self._client.pipeline(transaction=False)
        for shard in range(NUM_SHARDS):
            pipeline.zcard(_key(shard))
        with index_intact():
            return sum(await pipeline.execute())

    async def sweep(self) -> None:
        """Check some members, and remove those that are stale."""
        shard = next(self._shards)
        with index_intact():
            members = await self._client.zrangebylex(_key(shard), self._cursors[shard], b"+", 0, SWEEP_MEMBERS)
        await self._living(members)
        self._cursors[shard] = b"(" + members[-1] if len(members) == SWEEP_MEMBERS else b"-"

    async def _living(self, members: list[bytes]) -> list[bytes]:
        """Return the members that are not stale; remove the others, if they are old enough."""
        members = [member for member in members if _MEMBER.fullmatch(member)]
        if not members:
            return []
        pipeline = self._client.pipeline(transaction=False)
        for member in members:
            pipeline.hget(self._key_of(_parts(member)[0]), "b")
        births = await pipeline.execute(raise_on_error=False)
        living = [member for member, birth in zip(members, births, strict=True) if _is_living(member, birth)]
        await self._remove(set(members) - set(living))
        return living

    async def _remove(self, stale: Iterable[bytes]) -> None:
        settled = self._clock() - SETTLED_SECONDS
        old = [member for member in stale if int(_parts(member)[1].partition("-")[0], 16) < settled]
        if not old:
            return
        pipeline = self._client.pipeline(transaction=False)
        for member in old:
            pipeline.zrem(_set_of(_parts(member)[0]), member)
        await pipeline.execute()


def _is_living(member: bytes, birth: bytes | Exception | None) -> bool:
    """Whether the session's key has that birth, or is of a kind that has none: then it is listed as unreadable."""
    if isinstance(birth, Exception):
        if not is_foreign(birth):
            raise birth
        return True
    return birth == member.partition(b"\0")[2]


def _member(name: str, birth: str) -> bytes:
    return f"{name}\0{birth}".encode()


def _parts(member: bytes) -> tuple[str, str]:
    name, _, birth = member.decode().partition("\0")
    return name, birth


def _set_of(name: str) -> str:
    return _key(zlib.crc32(name.encode()) % NUM_SHARDS)


def _key(shard: int) -> str:
    return f"elman:index:{{{shard}}}"
