"""Encryption of what is stored: a record shows nothing, and opens only where it belongs."""

import base64
import os
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from elman_server.domain.errors import CorruptRecordError, SettingsError
from elman_server.process.settings import Settings
from elman_server.sessions.stores import MemoryStore, SqliteStore, open_store
from elman_server.sessions.stores.redis.store import RedisStore
from elman_server.sessions.stores.sealed import SealedStore, read_keys
from tests.clock import Clock
from tests.server.sessions.stores.conftest import TIMEOUT
from tests.server.sessions.stores.stores import LIVES

SECRET = b"the state and the words of a session" * 10
OLD, NEW = bytes(32), bytes(range(32))


@pytest.fixture
def plain(clock: Clock) -> MemoryStore:
    """The store that holds what is sealed."""
    return MemoryStore(100, 2**20, clock)


async def test_nothing_is_readable_in_the_sqlite_file(tmp_path, clock):
    """Neither head nor segment is found in any file of the store, and no two records are alike."""
    for keys in ([], [NEW]):
        folder = tmp_path / str(len(keys))
        folder.mkdir()
        inner = SqliteStore(folder / "sessions.db", 100, clock)
        store = SealedStore(inner, keys) if keys else inner
        await store.create("abcd", SECRET, LIVES, [SECRET, SECRET])
        stored = [(await inner.load("abcd")).head, *(await inner.segments("abcd"))]
        await store.close()
        content = b"".join(path.read_bytes() for path in folder.iterdir())
        assert (SECRET[:36] in content) == (not keys)
        assert b"abcd" in content  # names are not hidden
        assert len(set(stored)) == (3 if keys else 1)


async def test_nothing_is_readable_in_redis(redis, redis_process, clock):
    """Neither head nor segment is found in what Redis would write to its disk."""
    redis_process.client.config_set("rdbcompression", "no")
    inner = RedisStore(redis, TIMEOUT, clock)
    store = SealedStore(inner, [NEW])
    await store.create("abcd", SECRET, LIVES, [SECRET])
    dump = b"".join(redis_process.client.dump(key) for key in redis_process.client.scan_iter())
    assert SECRET[:36] not in dump
    await inner.create("efgh", SECRET, LIVES, [SECRET])
    dump = b"".join(redis_process.client.dump(key) for key in redis_process.client.scan_iter())
    assert SECRET[:36] in dump  # had it been there, it would have been found
    await store.close()


async def test_another_key_opens_nothing(plain):
    """With the wrong key every read is data loss, and says which key is needed."""
    await SealedStore(plain, [NEW]).create("abcd", SECRET, LIVES, [SECRET])
    other = SealedStore(plain, [OLD])
    for read in (other.load("abcd"), other.segments("abcd")):
        with pytest.raises(CorruptRecordError, match="needs the key 630dcd29"):
            await read
    assert [(name, stored.head) for name, stored in await other.page("", 10)] == [("abcd", b"")]


async def test_keys_are_rotated(plain):
    """The first key seals, every key opens; once all is sealed again the old one may be removed."""
    before = SealedStore(plain, [OLD])
    revision = await before.create("abcd", SECRET, LIVES, [b"1"])
    both = SealedStore(plain, [NEW, OLD])
    assert (await both.load("abcd")).head == SECRET
    await both.commit("abcd", revision, b"head", LIVES, [b"2"], keep=0)
    after = SealedStore(plain, [NEW])
    assert (await after.load("abcd")).head == b"head"
    assert await after.segments("abcd") == [b"2"]
    with pytest.raises(CorruptRecordError):
        await before.load("abcd")


async def test_every_changed_byte_is_seen(plain):
    """Whatever byte of a record is changed, and wherever it is cut, it does not open."""
    store = SealedStore(plain, [NEW])
    revision = await store.create("abcd", b"0123", LIVES)
    sealed = (await plain.load("abcd")).head
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    cut = [sealed[:length] for length in range(len(sealed))]
    for head in [*changed, *cut, sealed + b"\0", b"0123"]:
        revision = await plain.commit("abcd", revision, head, LIVES)
        with pytest.raises(CorruptRecordError):
            await store.load("abcd")


async def test_records_do_not_open_in_anothers_place(plain):
    """A head is valid for its session only, and a segment is not accepted as a head."""
    store = SealedStore(plain, [NEW])
    first = await store.create("abcd", b"mine", LIVES, [b"segment"])
    await store.create("efgh", b"yours", LIVES)
    (segment,) = await plain.segments("abcd")
    for foreign in ((await plain.load("efgh")).head, segment):
        first = await plain.commit("abcd", first, foreign, LIVES)
        with pytest.raises(CorruptRecordError, match="belongs elsewhere"):
            await store.load("abcd")


def test_keys_are_read_from_a_file_or_a_variable(tmp_path, monkeypatch):
    """White space splits them; the order stays."""
    text = f"{base64.b64encode(NEW).decode()}\n{base64.b64encode(OLD).decode()}\n"
    (tmp_path / "keys").write_text(text)
    monkeypatch.setenv("SESSION_KEYS", text)
    assert read_keys(f"file:{tmp_path / 'keys'}") == read_keys("env:SESSION_KEYS") == [NEW, OLD]


@pytest.mark.parametrize(
    "text",
    ["", " \n", "c2hvcnQ=", "?" * 44, base64.b64encode(OLD).decode() * 2, (base64.b64encode(OLD).decode() + " ") * 2],
)
def test_what_is_not_a_key_is_refused_without_showing_it(tmp_path: Path, text):
    """A file without keys, or with something else, stops the start with an error that says how to make one."""
    (tmp_path / "keys").write_text(text)
    with pytest.raises(SettingsError, match="openssl rand -base64 32") as refused:
        read_keys(f"file:{tmp_path / 'keys'}")
    assert not text.strip() or text.strip() not in str(refused.value)


@pytest.mark.parametrize("source", ["file:/nowhere/keys", "env:NOT_SET_AT_ALL"])
def test_keys_that_are_not_there_stop_the_start(source):
    """A key that is missing is never taken for encryption that is not wanted."""
    with pytest.raises(SettingsError, match=source):
        open_store(Settings(store_keys=source))


async def test_the_setting_switches_it_on(tmp_path, monkeypatch):
    """With `--store-keys` the file that `--store` names holds sealed records only."""
    monkeypatch.setenv("SESSION_KEYS", base64.b64encode(os.urandom(32)).decode())
    store = open_store(Settings(store=f"sqlite:{tmp_path / 's.db'}", store_keys="env:SESSION_KEYS"))
    await store.create("abcd", SECRET, 2e9)
    assert (await store.load("abcd")).head == SECRET
    store.in_use = lambda name: name == "abcd"
    assert store.in_use("abcd")
    await store.close()
    connection = sqlite3.connect(tmp_path / "s.db")
    assert connection.execute("SELECT substr(head, 1, 1) FROM sessions").fetchall() == [(b"\x82",)]
    connection.close()


async def test_segments_keep_their_places(tmp_path, clock):
    """A segment that was moved, within its session or to another one, is corrupt; so is one that is missing."""
    path = tmp_path / "sessions.db"
    store = SealedStore(SqliteStore(path, 10, clock), [NEW])
    for name in ("abcd", "efgh"):
        revision = await store.create(name, SECRET, LIVES, [b"0", b"1"])
        await store.commit(name, revision, SECRET, LIVES, [b"2"], place=2)
    assert await store.segments("abcd") == [b"0", b"1", b"2"]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE segments SET number = number + 10 WHERE session = 1 AND number < 2")
        connection.execute("UPDATE segments SET number = 11 - number WHERE session = 1 AND number >= 10")
        connection.execute("DELETE FROM segments WHERE session = 2 AND number = 1")
    connection.close()
    for name in ("abcd", "efgh"):
        with pytest.raises(CorruptRecordError, match="belongs elsewhere"):
            await store.segments(name)
    await store.close()


async def test_a_record_of_an_earlier_server_opens(plain):
    """Version 81 was bound to its session and the kind of record alone; another session's does not open."""
    cipher, nonce = AESGCM(NEW), bytes(12)
    store = SealedStore(plain, [NEW])

    def sealed(kind: str, name: str, record: bytes) -> bytes:
        bound = f"elman sealed 1\0{kind}\0{name}".encode()
        return b"\x81" + store._first + nonce + cipher.encrypt(nonce, record, bound)

    for name in ("abcd", "efgh"):
        await plain.create(name, sealed("head", "abcd", b"head"), LIVES, [sealed("segment", "abcd", b"1")])
    assert (await store.load("abcd")).head == b"head"
    assert await store.segments("abcd") == [b"1"]
    for read in (store.load("efgh"), store.segments("efgh")):
        with pytest.raises(CorruptRecordError, match="belongs elsewhere"):
            await read
