"""What only the store in Redis does: its keys, its index of names, and how faults of Redis are reported."""

import asyncio
import contextlib
import gc
import warnings
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from elman_server.domain.errors import (
    CorruptRecordError,
    RevisionMismatchError,
    SessionExistsError,
    SessionExpiredError,
    SettingsError,
    StoreUnavailableError,
)
from elman_server.sessions.stores.redis.index import NUM_SHARDS, SETTLED_SECONDS
from elman_server.sessions.stores.redis.store import SWEEP_EVERY, RedisStore
from tests.clock import START
from tests.redis_process import RedisProcess, need_program
from tests.server.sessions.stores.conftest import TIMEOUT
from tests.server.sessions.stores.stores import LIVES, end_of, names


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """The client leaves connections that broke to the garbage collector, which would warn in some later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
async def store(redis, clock):
    """A store in an empty Redis."""
    store = RedisStore(redis, TIMEOUT, clock)
    yield store
    await store.close()


@pytest.fixture
def own(tmp_path) -> Iterator[RedisProcess]:
    """A Redis that a test may harm."""
    need_program("redis-server")
    with RedisProcess(tmp_path) as process:
        yield process


def members(redis_process: RedisProcess) -> set[bytes]:
    """Return the names in the index."""
    found: list[Any] = []  # the library does not know that they are bytes
    for shard in range(NUM_SHARDS):
        found += redis_process.client.zrange(f"elman:index:{{{shard}}}", 0, -1)
    return {member.partition(b"\0")[0] for member in found}


async def test_redis_forgets_by_itself(store, redis_process):
    """Every key of a session has a time to live: the session's, and the grace in which it is reported as expired."""
    revision = await store.create("abcd", b"0", START + 100, [b"s"])
    lives = [redis_process.client.ttl(key) for key in ("elman:{abcd}", "elman:{abcd}:s")]
    assert all(100 < left <= 160 for left in lives)
    await store.commit("abcd", revision, b"0", START + 1000, [b"s"])
    lives = [redis_process.client.ttl(key) for key in ("elman:{abcd}", "elman:{abcd}:s")]
    assert all(1000 < left <= 1060 for left in lives)


async def test_what_redis_forgot_is_told_as_expired(store, redis_process):
    """A session whose keys were removed is expired, not unknown, as long as the index has its name."""
    await store.create("abcd", b"0", LIVES)
    redis_process.client.delete("elman:{abcd}")
    assert await end_of(store, "abcd") is SessionExpiredError
    for call in (store.segments("abcd"), store.delete("abcd", None), store.commit("abcd", 1, b"", LIVES)):
        with pytest.raises(SessionExpiredError):
            await call
    assert await names(store) == []


async def test_the_index_mends_itself(store, redis_process, clock):
    """Names of removed sessions leave it, if they are old enough: by lists, and by creations alone."""
    for number in range(50):
        await store.create(f"s-{number}", b"0", LIVES)
        redis_process.client.delete(f"elman:{{s-{number}}}")
    assert await names(store) == []
    assert len(members(redis_process)) == 50  # a creation may not have come to its session yet
    clock.now += SETTLED_SECONDS + 1
    for number in range(SWEEP_EVERY * NUM_SHARDS):
        await store.create(f"t-{number}", b"0", LIVES)
    assert members(redis_process) == {b"t-%d" % number for number in range(SWEEP_EVERY * NUM_SHARDS)}
    redis_process.client.delete("elman:{t-7}")
    clock.now += SETTLED_SECONDS + 1
    assert "t-7" not in await names(store)
    assert b"t-7" not in members(redis_process)


async def test_a_session_that_lives_is_always_listed(store, redis_process, clock):
    """Sweeps and lists beside creations, deletions and new sessions under old names lose no session."""
    for _ in range(3):
        await asyncio.gather(*(store.create(f"s-{number}", b"0", LIVES) for number in range(20)), names(store))
        await asyncio.gather(*(store.delete(f"s-{number}", None) for number in range(0, 20, 2)), store._index.sweep())
        assert await names(store) == sorted(f"s-{number}" for number in range(1, 20, 2))
        for number in range(1, 20, 2):
            redis_process.client.delete(f"elman:{{s-{number}}}")
        clock.now += SETTLED_SECONDS + 1
    await store.create("one", b"0", LIVES)
    with pytest.raises(SessionExistsError):
        await store.create("one", b"0", LIVES)
    assert await names(store) == ["one"]


async def test_a_redis_out_of_memory_is_unavailable(own, clock):
    """Redis refuses to write; reads still succeed, and with room again so do writes."""
    store = RedisStore(own.url, TIMEOUT, clock)
    revision = await store.create("abcd", b"0", LIVES)
    own.client.config_set("maxmemory", "1")
    for call in (store.create("efgh", b"0", LIVES), store.commit("abcd", revision, b"1", LIVES)):
        with pytest.raises(StoreUnavailableError, match="out of memory"):
            await call
    assert (await store.load("abcd")).head == b"0"
    own.client.config_set("maxmemory", "0")
    await store.commit("abcd", revision, b"1", LIVES)
    await store.close()


async def test_a_wrong_password_is_unavailable(redis_tls, clock):
    """Neither password nor address is sent to the caller."""
    store = RedisStore(redis_tls.replace("pass:word", "wrong"), TIMEOUT, clock)
    with pytest.raises(StoreUnavailableError) as refused:
        await store.load("abcd")
    assert str(refused.value) == "the session store cannot be reached; try again in 1 s"
    await store.close()


async def test_a_certificate_that_nobody_signed_is_refused(redis_tls, clock):
    """Without `?ca=` a certificate that no public authority signed is not accepted."""
    store = RedisStore(redis_tls.partition("?")[0], TIMEOUT, clock)
    with pytest.raises(StoreUnavailableError):
        await store.load("abcd")
    await store.close()


async def test_a_restart_is_not_noticed(own, clock):
    """Connections that the end of Redis has closed are opened again without a failed call."""
    store = RedisStore(own.url, TIMEOUT, clock)
    await store.create("abcd", b"0", LIVES)
    own.kill()
    with pytest.raises(StoreUnavailableError):
        await store.load("abcd")
    own.start()
    await store.create("efgh", b"0", LIVES)  # what was there is gone: this Redis keeps no file
    assert await names(store) == ["efgh"]
    await store.close()


@pytest.mark.parametrize("kind", ["string", "hash"])
async def test_a_key_of_another_program_hides_no_other_session(store, redis_process, kind):
    """It is data loss for its session alone, which is listed and can be deleted; others are as before."""
    for name in ("abcd", "efgh", "ijkl"):
        await store.create(name, b"head", LIVES, [b"segment"])
    redis_process.client.delete("elman:{efgh}")
    if kind == "string":
        redis_process.client.set("elman:{efgh}", "something else")
    else:
        redis_process.client.hset("elman:{efgh}", "b", redis_process.client.hget("elman:{abcd}", "b"))
        redis_process.client.hset("elman:{efgh}", "r", "something else")
        (member,) = (
            member
            for shard in range(16)
            for member in redis_process.client.zrange(f"elman:index:{{{shard}}}", 0, -1)
            if member.startswith(b"efgh\0")
        )
        redis_process.client.hset("elman:{efgh}", "b", member.partition(b"\0")[2])
    with pytest.raises(CorruptRecordError):
        await store.load("efgh")
    with pytest.raises(CorruptRecordError):
        await store.commit("efgh", 1, b"head", LIVES)
    assert [(name, stored.head) for name, stored in await store.page("", 10)] == [
        ("abcd", b"head"),
        ("efgh", b""),
        ("ijkl", b"head"),
    ]
    await store.delete("efgh", None)
    assert [name for name, _ in await store.page("", 10)] == ["abcd", "ijkl"]
    await store.create("efgh", b"head", LIVES)
    assert (await store.load("efgh")).head == b"head"


async def test_odd_fields_are_data_loss_of_their_session(store, redis_process):
    """Whatever another program made of a session's fields, no call on it fails in another way; it can be deleted."""
    client, key = redis_process.client, "elman:{efgh}"
    odd: list[dict[str, str | None]] = [
        {"e": "soon"},
        {"e": "nan"},
        {"r": "1e400"},
        {"more": "x"},
        {"r": None},
        {"e": None},
        {"b": None},
    ]
    await store.create("abcd", b"head", LIVES)
    for fields in odd:
        await store.create("efgh", b"head", LIVES, [b"segment"])
        for field, value in fields.items():
            if value is None:
                client.hdel(key, field)
            else:
                client.hset(key, field, value)
        with pytest.raises(CorruptRecordError):
            await store.load("efgh")
        for call in (store.segments("efgh"), store.commit("efgh", 1, b"", LIVES)):
            with contextlib.suppress(CorruptRecordError, RevisionMismatchError, SessionExpiredError):
                await call
        assert ("abcd", b"head") in [(name, stored.head) for name, stored in await store.page("", 10)]
        await store.delete("efgh", None)
    await store.create("efgh", b"head", LIVES)
    client.hset(key, "b", b"\xff")
    await store.delete("efgh", None)
    assert await names(store) == ["abcd"]


async def test_odd_entries_of_the_index_hide_no_session(store, redis_process):
    """What another program puts into the index is skipped, by lists and by sweeps."""
    for member in (b"", b"\0", b"\xff\0", b"efgh", b"efgh\0zz", b"efgh\0\xff", b"a" * 100_000):
        for shard in range(NUM_SHARDS):
            redis_process.client.zadd(f"elman:index:{{{shard}}}", {member: 0})
    made = [f"s-{number:02}" for number in range(2 * SWEEP_EVERY)]
    for name in made:
        await store.create(name, b"0", LIVES)
    assert await names(store) == made


async def test_an_index_that_is_none_is_an_outage(store, redis_process):
    """A list without some of the sessions would be wrong; calls on a session that is there are as before."""
    revision = await store.create("abcd", b"0", LIVES)
    for shard in range(NUM_SHARDS):
        redis_process.client.set(f"elman:index:{{{shard}}}", "x")
    for call in (store.page("", 10), store.create("efgh", b"0", LIVES), store.num_sessions()):
        with pytest.raises(StoreUnavailableError, match="index is damaged"):
            await call
    await store.commit("abcd", revision, b"1", LIVES)
    assert (await store.load("abcd")).head == b"1"


async def test_what_is_no_redis_is_an_outage(clock):
    """Whatever answers at the address, and however much it announces: calls fail as if nothing did, and at once."""
    refused = [
        b"$1000000000000\r\n" + bytes(1000),
        b"$-7\r\n",
        b"*1000000000000\r\n" + b":1\r\n" * 1000,
        b"*1\r\n" * 10_000,
        b"$many\r\n",
        b":x\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\r\n",
    ]
    odd = [kind * 100 for kind in (b"+OK\r\n", b":1\r\n", b"*0\r\n", b"*1\r\n$1\r\na\r\n")]
    answer = b""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(impostor, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    for answer in [*refused, *odd]:
        store = RedisStore(f"redis://{host}:{port}", 3600, clock)
        calls: list[Callable[[], Awaitable[object]]] = [
            partial(store.load, "abcd"),
            partial(store.create, "abcd", b"", LIVES),
            partial(store.commit, "abcd", 1, b"", LIVES),
            partial(store.delete, "abcd", None),
            partial(store.page, "", 10),
            partial(store.segments, "abcd"),
            store.num_sessions,
        ]
        for call in calls:
            found: object = "refused"
            with contextlib.suppress(StoreUnavailableError):
                found = await call()
            assert found == "refused" or answer in odd, (answer, found)
        await store.close()
    answer = refused[0]
    store = RedisStore(f"redis+cluster://{host}:{port}", 3600, clock)
    with pytest.raises(StoreUnavailableError):
        await store.load("abcd")
    await store.close()
    server.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1?ca=x",
        "rediss://127.0.0.1:1?socket_timeout=9",
        "redis://127.0.0.1:port",
        "redis://127.0.0.1/0?db=1",
        "redis://127.0.0.1/x",
        "redis+cluster://127.0.0.1/1",
    ],
)
def test_a_url_that_cannot_be_honoured_is_refused(url):
    """What would be ignored, or cannot be read, stops the start."""
    with pytest.raises(SettingsError, match="--store"):
        RedisStore(url, TIMEOUT)
