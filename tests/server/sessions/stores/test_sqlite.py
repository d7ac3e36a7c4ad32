"""What only the store in a SQLite file does: its file, its caps, and what a failing disk or process does to it."""

import asyncio
import contextlib
import os
import random
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elman_server.domain.errors import (
    CorruptRecordError,
    QuotaError,
    SessionExpiredError,
    SessionNotFoundError,
    SettingsError,
    StoreFullError,
    StoreUnavailableError,
)
from elman_server.sessions.stores import SqliteStore
from elman_server.sessions.stores import sqlite as sqlite_module
from tests.clock import START
from tests.server.sessions.stores.stores import LIVES, end_of, names
from tests.services import need

ROOT = Path(__file__).parents[4]
ROUNDS = 8  # of killing a writer


@pytest.fixture
def path(tmp_path) -> Path:
    """Where the file is to be."""
    file: Path = tmp_path / "sessions.db"
    return file


def execute(path: Path, *statements: str) -> None:
    """Change a file as another program would."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# The file


async def test_the_file_is_the_owners_alone(path):
    """No other user may read the file or the files that SQLite puts beside it."""
    store = SqliteStore(path, 10)
    await store.create("abcd", b"0", 2e9)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    await store.close()
    assert {file.name for file in path.parent.iterdir()} == {"sessions.db", "sessions.db.reserve"}


async def test_a_newer_schema_is_refused(path):
    """A file of a server to come is left as it is."""
    await SqliteStore(path, 10).close()
    execute(path, "PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="has schema 2, this server knows 1"):
        SqliteStore(path, 10)
    assert path.read_bytes() == before


def test_a_foreign_database_is_refused(path):
    """Another program's file is not written to."""
    execute(path, "CREATE TABLE theirs (x)")
    with pytest.raises(SettingsError, match="another program's"):
        SqliteStore(path, 10)


def test_what_is_no_database_is_refused(path, tmp_path):
    """A text, a folder and a place that is not there stop the start with a sentence."""
    path.write_text("To be, or not to be, that is the question" * 100)
    for place in (path, tmp_path, tmp_path / "nowhere" / "sessions.db"):
        with pytest.raises(SettingsError, match="name a file in a folder that can be written"):
            SqliteStore(place, 10)


async def test_a_damaged_file_is_data_loss(path, clock):
    """Pages that were overwritten are reported as damaged, not as an outage."""
    store = SqliteStore(path, 1000, clock)
    for number in range(50):
        await store.create(f"s-{number}", bytes(8000), LIVES)
    await store.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * len(content[8192:])
    path.write_bytes(content)
    store = SqliteStore(path, 1000, clock)
    with pytest.raises(CorruptRecordError):
        await names(store)
    await store.close()


async def test_two_servers_may_share_a_file(path, clock):
    """What one process writes the other reads, and only one of two commits wins."""
    one, two = SqliteStore(path, 10, clock), SqliteStore(path, 10, clock)
    revision = await one.create("abcd", b"0", LIVES)
    assert (await two.load("abcd")).revision == revision
    commits = (store.commit("abcd", revision, b"1", LIVES, [b"s"]) for store in (one, two))
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert sorted(isinstance(outcome, int) for outcome in outcomes) == [False, True]
    assert await one.segments("abcd") == [b"s"]
    await one.close()
    await two.close()


# Caps


async def test_the_number_of_sessions_is_capped(path, clock):
    """A new one is refused, nothing is evicted; what is deleted or over makes room, also after a restart."""
    store = SqliteStore(path, 2, clock)
    await store.create("one", b"0", LIVES)
    await store.create("two", b"0", START + 1)
    await store.close()
    store = SqliteStore(path, 2, clock)
    with pytest.raises(QuotaError) as refused:
        await store.create("three", b"0", LIVES)
    assert (refused.value.subject, refused.value.limit) == ("sessions", 2)
    clock.now += 5
    await store.create("three", b"0", LIVES)
    await store.delete("one", None)
    await store.create("four", b"0", LIVES)
    assert await names(store) == ["four", "three"]
    await store.close()


async def test_expired_sessions_leave_only_their_names(path, clock, monkeypatch):
    """They are deleted a few at a time, with their segments; of very many names the oldest are dropped."""
    monkeypatch.setattr(sqlite_module, "MAX_TOMBSTONES", 10)
    store = SqliteStore(path, 1000, clock)
    for number in range(40):
        await store.create(f"s-{number}", b"0", START + 1 + number / 100, [b"s"])
    clock.now += 5
    for number in range(10):
        await store.create(f"new-{number}", b"0", LIVES)
    assert len(await names(store)) == 10
    assert await end_of(store, "s-39") is SessionExpiredError
    assert await end_of(store, "s-0") is SessionNotFoundError
    await store.close()
    connection = sqlite3.connect(path)
    for table, expected in (("sessions", 10), ("segments", 0), ("expired", 10)):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (expected,)
    assert connection.execute("SELECT num_sessions FROM counters").fetchone() == (10,)
    connection.close()


# When things fail


async def test_a_full_disk_is_unavailable_and_heals(path, clock):
    """Nothing is acknowledged that is not stored, reads still succeed, and with room again so do writes."""
    store = SqliteStore(path, 1000, clock)
    connection = store._writer._connection
    revision = await store.create("abcd", b"0", LIVES)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StoreUnavailableError, match="disk of the session store is full"):
        await store.commit("abcd", revision, b"1", LIVES, [bytes(100_000)])
    assert (await store.load("abcd")).head == b"0"
    assert await store.segments("abcd") == []
    small, large = (store.commit("abcd", revision, b"2", LIVES), store.create("efgh", bytes(100_000), LIVES))
    outcomes = await asyncio.gather(small, large, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, StoreFullError]  # one's trouble is not the other's
    connection.execute("PRAGMA max_page_count = 1000000")
    await store.commit("abcd", (await store.load("abcd")).revision, b"3", LIVES, [bytes(100_000)])
    assert await names(store) == ["abcd"]
    await store.close()


async def test_a_locked_file_is_unavailable(path, clock, monkeypatch):
    """Another program that holds the file for long is an outage, which ends with it."""
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    store = SqliteStore(path, 10, clock)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        await store.create("abcd", b"0", LIVES)
    other.execute("COMMIT")
    other.close()
    await store.create("abcd", b"0", LIVES)
    await store.close()


async def test_who_is_cancelled_takes_nobody_along(path, clock):
    """A caller that is cancelled does not disturb the others that wait."""
    store = SqliteStore(path, 1000, clock)
    tasks = [asyncio.create_task(store.create(f"s-{number}", b"0", LIVES)) for number in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, int) for outcome in outcomes[1::2])
    assert set(await names(store)) >= {f"s-{number}" for number in range(1, 100, 2)}
    await store.close()


async def test_killed_at_any_moment_every_acknowledged_turn_is_there(path):
    """A writer is killed again and again; the file opens, and holds what it had acknowledged, each once."""
    acknowledged: dict[str, int] = {}
    for _ in range(ROUNDS):
        acknowledged |= await asyncio.to_thread(_write_and_die, path)
        store = SqliteStore(path, 1000)
        for name, count in acknowledged.items():
            segments = await store.segments(name)
            assert segments == [b"%d" % number for number in range(len(segments))]
            assert (await store.load(name)).head == b"%d" % len(segments)
            assert len(segments) >= count
        await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert sum(acknowledged.values()) > ROUNDS


def _write_and_die(path: Path) -> dict[str, int]:
    """Run a writer for a moment; return how many segments of each session it had acknowledged."""
    command = [sys.executable, "-m", "tests.server.sessions.stores.writer", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]  # it is at work
        time.sleep(random.uniform(0, 0.1))
        writer.kill()
        lines += writer.stdout.readlines()
    return {name: int(count) for name, count in (line.split() for line in lines if line.endswith("\n"))}


async def test_all_who_wait_for_a_locked_file_are_answered_together(path, clock, monkeypatch):
    """Many calls wait once for the lock, and not one after another; so do those that come meanwhile."""
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.3)
    store = SqliteStore(path, 1000, clock)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begins, transaction = [], store._writer._transaction

    def counted(group: Any) -> Any:
        begins.append(len(group))
        return transaction(group)

    monkeypatch.setattr(store._writer, "_transaction", counted)
    calls = [asyncio.create_task(store.create(f"s-{number}", b"0", LIVES)) for number in range(600)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    assert len(begins) <= 2
    other.execute("COMMIT")
    other.close()
    assert await store.create("abcd", b"0", LIVES)
    await store.close()


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_that_was_removed_is_noticed(path, clock, is_replaced):
    """Nothing is written to a file that is not there any more, or to another one in its place."""
    store = SqliteStore(path, 10, clock)
    revision = await store.create("abcd", b"0", LIVES)
    path.rename(path.with_name("elsewhere"))
    if is_replaced:
        path.touch()
    for call in (
        store.commit("abcd", revision, b"1", LIVES),
        store.create("efgh", b"0", LIVES),
        store.load("abcd"),
        store.page("", 1),
    ):
        with pytest.raises(StoreUnavailableError, match="was removed or replaced"):
            await call
    path.unlink(missing_ok=True)
    path.with_name("elsewhere").rename(path)
    assert (await store.load("abcd")).head == b"0"
    await store.close()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={32 << 20}", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    need("the right to mount a small file system", is_there=is_mounted, switch="REQUIRE_MOUNT")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_is_freed_by_deleting(small_disk, clock):
    """On a disk without one free byte sessions can be deleted, and expired ones are; then there is room."""
    store = SqliteStore(small_disk / "s.db", 100_000, clock)
    count = 0
    with contextlib.suppress(StoreFullError):
        while True:
            await store.create(f"s-{count:06}", os.urandom(20_000), START + 10 if count % 2 else LIVES)
            count += 1
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(512))
    for number in range(0, count, 2):
        await store.delete(f"s-{number:06}", None)
    clock.now += 20
    for number in range(count // 2):
        await store.create(f"t-{number:06}", os.urandom(20_000), LIVES)
    await store.close()
