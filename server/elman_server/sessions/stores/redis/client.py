"""The connection to Redis: what its URL says, and what its errors mean."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisClusterException, RedisError, ResponseError

from elman_server.domain.errors import CorruptRecordError, SettingsError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CONNECTIONS: Final = 64  # of this process; a call that finds none free waits
RETRY_SECONDS: Final = 1.0
_DATABASE: Final = re.compile(r"(/\d*)?")
_TLS_FILES: Final = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}

log = structlog.get_logger(__name__)

Client = Any  # Redis or RedisCluster: the library's own types are not those of what they return


def connect(url: str, timeout: float) -> Client:
    """Return a client; it connects when it is used, and again whenever that is needed.

    Args:
        url: `redis://[user[:password]@]host[:port][/database]`; `rediss` for TLS, `redis+cluster` or `rediss+cluster`
            for a cluster. With TLS `?ca=FILE` names who may have signed the server's certificate, `cert` and `key`
            the client's own.
        timeout: seconds to wait for a connection and for each answer.

    Raises:
        SettingsError: the URL is not one of these.
    """
    parts = urlsplit(url)
    scheme, _, cluster = parts.scheme.partition("+")
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 2,
        # A call without a reply may have been carried out: only its caller knows whether it may be repeated.
        "retry": Retry(NoBackoff(), 0),
    }
    for name, values in parse_qs(parts.query, keep_blank_values=True).items():
        if name not in _TLS_FILES or scheme != "rediss":
            raise SettingsError(f"--store: {name!a} is not known in a {parts.scheme} URL; TLS knows ca, cert and key")
        options[_TLS_FILES[name]] = values[0]
    if not _DATABASE.fullmatch(parts.path) or (cluster and parts.path.strip("/")):
        what = "a cluster has no databases" if cluster else "a database is a number"
        raise SettingsError(f"--store: {parts.path!a} is no database of Redis; {what}")
    plain = f"{scheme}://{parts.netloc}{parts.path}"
    try:
        if cluster:
            return RedisCluster.from_url(plain, max_connections=MAX_CONNECTIONS, **options)
        pool = BlockingConnectionPool.from_url(plain, max_connections=MAX_CONNECTIONS, timeout=timeout, **options)
    except ValueError as error:
        raise SettingsError(f"--store: the URL cannot be read: {error}") from error
    return Redis.from_pool(pool)


def is_foreign(error: Exception) -> bool:
    """Whether Redis refuses because of what another program has put into a session's key."""
    return isinstance(error, ResponseError) and ("WRONGTYPE" in str(error) or "attempt to" in str(error))


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of Redis and the network into StoreUnavailableError, and log them."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        if is_foreign(error):
            raise CorruptRecordError("the session's key in Redis was changed by another program") from error
        log.warning("store_failed", error=f"{type(error).__name__}: {error}")
        what = "is out of memory" if isinstance(error, OutOfMemoryError) else "cannot be reached"
        raise StoreUnavailableError(f"the session store {what}", RETRY_SECONDS) from error
