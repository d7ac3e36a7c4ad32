"""A process that commits turns to a SQLite file until it is killed, and says of each that it is stored."""

import asyncio
import sys
from pathlib import Path

from elman_server.domain.errors import SessionNotFoundError
from elman_server.sessions.stores import SqliteStore

NAMES = ("one", "two", "three")
EXPIRES = 4e9


async def write(store: SqliteStore, name: str) -> None:
    """Add segments to a session, each its own number, and keep their count in the head."""
    try:
        stored = await store.load(name)
        revision, count = stored.revision, int(stored.head)
    except SessionNotFoundError:
        revision, count = await store.create(name, b"0", EXPIRES), 0
    while True:
        revision = await store.commit(name, revision, b"%d" % (count + 1), EXPIRES, [b"%d" % count])
        count += 1
        sys.stdout.write(f"{name} {count}\n")
        sys.stdout.flush()


async def main(path: Path) -> None:
    """Write to some sessions at once, so that transactions hold several turns."""
    store = SqliteStore(path, 100)
    await asyncio.gather(*(write(store, name) for name in NAMES))


asyncio.run(main(Path(sys.argv[1])))
