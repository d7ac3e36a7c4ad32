"""Every store, against the real thing."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from elman_server.sessions.stores import MemoryStore, SqliteStore, Store
from elman_server.sessions.stores.redis.store import RedisStore
from elman_server.sessions.stores.sealed import SealedStore
from tests.clock import Clock
from tests.redis_process import RedisProcess, cluster, need_program

TIMEOUT = 20.0  # seconds for an answer of Redis: no test depends on it
KEYS = [bytes(32), bytes(range(32))]
STORES = ("memory", "sqlite", "redis", "valkey", "redis-tls", "redis-cluster", "sealed-sqlite", "sealed-redis")


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


@pytest.fixture(params=STORES)
def make_store(request, clock, tmp_path) -> Callable[[], Store]:
    """Open a store; each time the same one, but for memory."""
    kind = request.param.removeprefix("sealed-")
    if kind == "memory":
        return lambda: MemoryStore(10_000, 2**30, clock)
    if kind == "sqlite":
        make: Callable[[], Store] = lambda: SqliteStore(tmp_path / "sessions.db", 10_000, clock)  # noqa: E731
    else:
        url = request.getfixturevalue(kind.replace("-", "_"))
        make = lambda: RedisStore(url, TIMEOUT, clock)  # noqa: E731
    return make if kind == request.param else lambda: SealedStore(make(), KEYS)


@pytest.fixture
async def store(make_store) -> AsyncIterator[Store]:
    """An empty store with room for what these tests keep."""
    store = make_store()
    yield store
    await store.close()


@pytest.fixture
def redis(redis_process) -> str:
    """The URL of an empty Redis."""
    redis_process.client.flushall()
    return str(redis_process.url)


@pytest.fixture
def valkey(valkey_process) -> str:
    """The URL of an empty Valkey."""
    valkey_process.client.flushall()
    return str(valkey_process.url)


@pytest.fixture
def redis_tls(redis_tls_process) -> str:
    """The URL of an empty Redis behind TLS and a password."""
    redis_tls_process.client.flushall()
    return str(redis_tls_process.url)


@pytest.fixture
def redis_cluster(redis_cluster_processes) -> str:
    """The URL of an empty cluster: of one of its nodes, which knows the others."""
    for process in redis_cluster_processes:
        process.client.flushall()
    return str(redis_cluster_processes[0].url.replace("redis:", "redis+cluster:"))


# The servers, for all tests that do them no harm


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory) -> Iterator[RedisProcess]:
    """A Redis."""
    need_program("redis-server")
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(scope="session")
def valkey_process(tmp_path_factory) -> Iterator[RedisProcess]:
    """A Valkey."""
    need_program("valkey-server")
    with RedisProcess(tmp_path_factory.mktemp("valkey"), program="valkey-server") as process:
        yield process


@pytest.fixture(scope="session")
def redis_tls_process(tmp_path_factory, certificate) -> Iterator[RedisProcess]:
    """A Redis that asks for TLS and a password."""
    need_program("redis-server")
    with RedisProcess(tmp_path_factory.mktemp("redis"), tls=certificate, password="pass:word") as process:
        yield process


@pytest.fixture(scope="session")
def redis_cluster_processes(tmp_path_factory) -> Iterator[list[RedisProcess]]:
    """Three nodes of a cluster."""
    need_program("redis-server")
    with cluster(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    """A folder with a certificate for 127.0.0.1, `server.pem`, its key, and who signed it, `ca.pem`: itself."""
    need_program("openssl")
    folder: Path = tmp_path_factory.mktemp("certificate")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    what = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", str(folder / "server.pem"), "-keyout", str(folder / "server.key")]
    subprocess.run([*new, *what, *files], check=True, capture_output=True)
    shutil.copy(folder / "server.pem", folder / "ca.pem")
    return folder
