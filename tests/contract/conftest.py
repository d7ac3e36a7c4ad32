"""Every store, against the real thing."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from elman_server.stores import MemoryStore, Store
from elman_server.stores.redis import RedisStore
from elman_server.stores.sqlite import SqliteStore
from tests.clock import Clock
from tests.redis_process import RedisProcess
from tests.services import need

TIMEOUT = 20.0  # seconds for an answer of Redis: no test depends on it
STORES = ("memory", "sqlite", "redis", "redis-tls")


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


@pytest.fixture(params=STORES)
def make_store(request, clock, tmp_path) -> Callable[[], Store]:
    """Open a store; each time the same one, but for memory."""
    if request.param == "memory":
        return lambda: MemoryStore(10_000, 2**30, clock)
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "sessions.db", 10_000, clock)
    server = request.getfixturevalue(request.param.replace("-", "_"))
    server.client.flushall()
    return lambda: RedisStore(server.url, TIMEOUT, clock)


@pytest.fixture
async def store(make_store) -> AsyncIterator[Store]:
    """An empty store with room for what these tests keep."""
    store = make_store()
    yield store
    await store.close()


@pytest.fixture(scope="session")
def redis(tmp_path_factory) -> Iterator[RedisProcess]:
    """A Redis for all tests that do it no harm."""
    need("redis-server", is_there=shutil.which("redis-server") is not None)
    with RedisProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_tls(tmp_path_factory, certificate) -> Iterator[RedisProcess]:
    """A Redis that asks for TLS and a password."""
    need("redis-server", is_there=shutil.which("redis-server") is not None)
    with RedisProcess(tmp_path_factory.mktemp("redis"), tls=certificate, password="pass:word") as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    """A folder with a certificate for 127.0.0.1, `server.pem`, its key, and who signed it, `ca.pem`: itself."""
    need("openssl", is_there=shutil.which("openssl") is not None)
    folder: Path = tmp_path_factory.mktemp("certificate")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    what = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", str(folder / "server.pem"), "-keyout", str(folder / "server.key")]
    subprocess.run([*new, *what, *files], check=True, capture_output=True)
    shutil.copy(folder / "server.pem", folder / "ca.pem")
    return folder
