"""Sessions in one SQLite file.

What a call returned survives the process's death and a power cut: the write-ahead log is synced to disk before the
call returns (`synchronous=FULL`; NORMAL is faster and could lose the last turns in a power cut). One thread writes,
with one sync for all calls that wait; another one reads, and never waits for a writer.
"""

from __future__ import annotations

import math
import sqlite3
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import (
    QuotaError,
    RevisionMismatchError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
    SettingsError,
    StoreFullError,
)
from elman_server.process.clock import SYSTEM
from elman_server.process.observe.counters import COUNTERS
from elman_server.sessions.stores.base import Stored
from elman_server.sessions.stores.reserve import Reserve
from elman_server.sessions.stores.sqlite_thread import SqliteThread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elman_server.process.clock import Clock

APPLICATION_ID: Final = 0x456C6D6E  # "Elmn"
SCHEMA_VERSION: Final = 1
MAX_BYTES: Final = 2**36
BUSY_SECONDS: Final = 5.0  # the longest wait for another process's lock on the file
PURGE_STEPS: Final = 16  # expired sessions deleted in one call, so that no call takes long
MAX_TOMBSTONES: Final = 100_000  # names whose expiry is remembered
_SCHEMA: Final = """
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, expires REAL NOT NULL,
  num_segments INTEGER NOT NULL, head BLOB NOT NULL
) STRICT;
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE TABLE segments (
  session INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE expired (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
-- One count for all sessions: a revision does not come back, not even under the same name.
CREATE TABLE counters (revision INTEGER NOT NULL, num_sessions INTEGER NOT NULL) STRICT;
"""
_EXPIRED: Final = "SELECT id, name FROM sessions WHERE expires <= ? ORDER BY expires LIMIT ?"


class SqliteStore:
    """A store in a file, which it makes if there is none; nothing is ever evicted.

    Args:
        path: its folder must exist, on a disk of this machine.
        max_sessions: past them a new session is refused.
        max_bytes: of the file, past which it is full.
        clock: by which sessions expire.

    Attributes:
        in_use: whether a turn runs on a session; such a session does not expire.

    Raises:
        SettingsError: the file cannot be opened, or is not one of this server's.
    """

    keeps_objects = False
    is_shared = True

    def __init__(self, path: Path, max_sessions: int, clock: Clock = SYSTEM, max_bytes: int = MAX_BYTES) -> None:
        self._max_sessions = max_sessions
        self._clock = clock
        self.in_use: Callable[[str], bool] = lambda _: False
        writer, reader = _open(path, clock), _open(path, clock, "PRAGMA query_only = ON")
        (page_bytes,) = writer.execute("PRAGMA page_size").fetchone()
        writer.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")
        reserve = Reserve(path.with_name(f"{path.name}.reserve"))
        self._writer = SqliteThread(writer, "BEGIN IMMEDIATE", path, reserve)
        self._reader = SqliteThread(reader, "BEGIN", path)

    async def create(self, name: str, head: bytes, expires: float, segments: Sequence[bytes] = ()) -> int:
        """Keep a new session; see Store."""
        now = self._now(name)

        def work(connection: sqlite3.Connection) -> int:
            self._purge(connection)
            old = connection.execute("SELECT id, expires FROM sessions WHERE name = ?", (name,)).fetchone()
            if old is not None and old[1] > now:
                raise SessionExistsError(f"sessions/{name}")
            (count,) = connection.execute("SELECT num_sessions FROM counters").fetchone()
            if old is None and count >= self._max_sessions:
                raise QuotaError("sessions", self._max_sessions, 1.0)
            if old is not None:
                _delete(connection, old[0])
            connection.execute("DELETE FROM expired WHERE name = ?", (name,))
            revision = _count(connection, 1)
            made = connection.execute(
                "INSERT INTO sessions (name, revision, expires, num_segments, head) VALUES (?, ?, ?, ?, ?)",
                (name, revision, expires, len(segments), head),
            )
            _append(connection, made.lastrowid, 0, segments)
            return revision

        try:
            return await self._writer.run(work)
        except StoreFullError:
            await self._writer.run(self._purge, frees=True)
            raise

    async def load(self, name: str) -> Stored:
        """Return a session; see Store."""
        now = self._now(name)

        def work(connection: sqlite3.Connection) -> Stored:
            _, revision, expires, _ = _find(connection, name, now)
            (head,) = connection.execute("SELECT head FROM sessions WHERE name = ?", (name,)).fetchone()
            return Stored(head, revision, expires)

        return await self._reader.run(work)

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
        now = self._now(name)

        def work(connection: sqlite3.Connection) -> int:
            session, found, _, num_segments = _find(connection, name, now)
            _check(name, found, revision)
            new = _count(connection)
            kept = num_segments if keep is None else min(keep, num_segments)
            if kept < num_segments:
                connection.execute("DELETE FROM segments WHERE session = ? AND number >= ?", (session, kept))
            _append(connection, session, kept, segments)
            connection.execute(
                "UPDATE sessions SET revision = ?, expires = ?, num_segments = ?, head = ? WHERE id = ?",
                (new, expires, kept + len(segments), head, session),
            )
            self._purge(connection)
            return new

        return await self._writer.run(work)

    async def delete(self, name: str, revision: int | None) -> None:
        """Delete a session; see Store."""
        now = self._now(name)

        def work(connection: sqlite3.Connection) -> None:
            session, found, _, _ = _find(connection, name, now)
            if revision is not None:
                _check(name, found, revision)
            _delete(connection, session)

        await self._writer.run(work, frees=True)

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return sessions in name order; see Store."""
        query = "SELECT name, head, revision, expires FROM sessions WHERE name > ? ORDER BY name LIMIT ?"

        def work(connection: sqlite3.Connection) -> list[tuple[str, Stored]]:
            return [(name, Stored(*rest)) for name, *rest in connection.execute(query, (after, limit))]

        return await self._reader.run(work)

    async def segments(self, name: str, start: int = 0, end: int | None = None) -> list[bytes]:
        """Return a session's segments; see Store."""
        now = self._now(name)
        query = "SELECT data FROM segments WHERE session = ? AND number >= ? AND number < ? ORDER BY number"

        def work(connection: sqlite3.Connection) -> list[bytes]:
            session, _, _, num_segments = _find(connection, name, now)
            rows = connection.execute(query, (session, start, num_segments if end is None else end))
            return [data for (data,) in rows]

        return await self._reader.run(work)

    async def num_sessions(self) -> int:
        """Return how many sessions there are; see Store."""

        def work(connection: sqlite3.Connection) -> int:
            (number,) = connection.execute("SELECT num_sessions FROM counters").fetchone()
            return int(number)

        return await self._reader.run(work)

    async def close(self) -> None:
        """Finish the calls that wait and close the file."""
        await self._writer.close()
        await self._reader.close()

    def _now(self, name: str) -> float:
        """Return the time with which a session's expiry is compared."""
        return -math.inf if self.in_use(name) else self._clock.expiry()

    def _purge(self, connection: sqlite3.Connection) -> None:
        """Delete a few sessions that have expired."""
        for session, name in connection.execute(_EXPIRED, (self._clock.expiry(), PURGE_STEPS)).fetchall():
            if self.in_use(name):
                continue
            _delete(connection, session)
            COUNTERS.sessions_ended["expired"] += 1
            added = connection.execute("INSERT OR REPLACE INTO expired (name) VALUES (?)", (name,))
            connection.execute("DELETE FROM expired WHERE id <= ?", ((added.lastrowid or 0) - MAX_TOMBSTONES,))


def _open(path: Path, clock: Callable[[], float], *pragmas: str) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)  # transcripts are private
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        _set_up(connection, path, clock)
        for pragma in ("PRAGMA synchronous = FULL", "PRAGMA fullfsync = ON", *pragmas):
            connection.execute(pragma)
    except (OSError, sqlite3.Error) as error:
        raise SettingsError(f"--store sqlite:{path}: {error}; name a file in a folder that can be written") from error
    return connection


def _set_up(connection: sqlite3.Connection, path: Path, clock: Callable[[], float]) -> None:
    """Make the tables in an empty file, and refuse one that is another program's or a newer server's."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise SettingsError(f"--store sqlite:{path}: cannot have a write-ahead log; name a file on a local disk")
    connection.execute("BEGIN IMMEDIATE")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (application, version, num_tables) == (0, 0, 0):
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute("INSERT INTO counters VALUES (?, 0)", (int(clock() * 1e9),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif application != APPLICATION_ID:
        raise SettingsError(f"--store sqlite:{path}: is another program's database; name a new file")
    elif version != SCHEMA_VERSION:
        raise SettingsError(
            f"--store sqlite:{path}: has schema {version}, this server knows {SCHEMA_VERSION}; use the newer server"
        )
    connection.execute("COMMIT")


def _find(connection: sqlite3.Connection, name: str, now: float) -> tuple[int, int, float, int]:
    """Return a session's id, revision, expiry and number of segments."""
    query = "SELECT id, revision, expires, num_segments FROM sessions WHERE name = ?"
    row: tuple[int, int, float, int] | None = connection.execute(query, (name,)).fetchone()
    if row is None:
        is_expired = connection.execute("SELECT 1 FROM expired WHERE name = ?", (name,)).fetchone()
        raise (SessionExpiredError if is_expired else SessionNotFoundError)(f"sessions/{name}")
    if row[2] <= now:
        raise SessionExpiredError(f"sessions/{name}")
    return row


def _check(name: str, found: int, revision: int) -> None:
    if found != revision:
        raise RevisionMismatchError(f"sessions/{name}")


def _append(connection: sqlite3.Connection, session: int | None, start: int, segments: Sequence[bytes]) -> None:
    rows = ((session, number, data) for number, data in enumerate(segments, start))
    connection.executemany("INSERT INTO segments VALUES (?, ?, ?)", rows)


def _delete(connection: sqlite3.Connection, session: int) -> None:
    connection.execute("DELETE FROM segments WHERE session = ?", (session,))
    connection.execute("DELETE FROM sessions WHERE id = ?", (session,))
    _count(connection, -1)


def _count(connection: sqlite3.Connection, new_sessions: int = 0) -> int:
    """Return the next revision."""
    query = "UPDATE counters SET revision = revision + 1, num_sessions = num_sessions + ? RETURNING revision"
    ((revision,),) = connection.execute(query, (new_sessions,)).fetchall()
    return int(revision)
