"""The connection to Redis: what its URL says, and what its errors mean."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import structlog
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, OutOfMemoryError, RedisClusterException, RedisError, ResponseError

from elman_server.domain.errors import CorruptRecordError, ServerError, SettingsError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CONNECTIONS: Final = 64  # of this process; a call that finds none free waits
RETRY_SECONDS: Final = 1.0
_DATABASE: Final = re.compile(r"(/\d*)?")
_TLS_FILES: Final = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}

CHANGED: Final = "the session's key in Redis was changed by another program"
MAX_BULK_BYTES: Final = 1 << 26  # of one value; a segment or a chunk of a head is far smaller
MAX_ITEMS: Final = 1 << 20  # of one answer

log = structlog.get_logger(__name__)

Client = Any  # Redis or RedisCluster: the library's own types are not those of what they return


class _Parser(_AsyncRESP2Parser):
    """Reads answers within bounds: what listens at the address may be no Redis. The library itself has none."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except (ValueError, RecursionError) as error:  # a length that is not a number, lists in lists in lists
            raise InvalidResponse("the answer is not one of Redis") from error

    async def _readline(self) -> bytes:
        line = await super()._readline()
        if line[:1] == b"*":
            _check(int(line[1:]), MAX_ITEMS)
        return line

    async def _read(self, length: int) -> bytes:
        _check(length, MAX_BULK_BYTES)
        return await super()._read(length)


def _check(number: int, most: int) -> None:
    if not -1 <= number <= most:
        raise InvalidResponse(f"an answer announces {number} bytes or items; at most {most} are accepted")


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
            return _bounded(RedisCluster.from_url(plain, max_connections=MAX_CONNECTIONS, **options))
        pool = BlockingConnectionPool.from_url(
            plain, max_connections=MAX_CONNECTIONS, timeout=timeout, parser_class=_Parser, **options
        )
    except ValueError as error:
        raise SettingsError(f"--store: the URL cannot be read: {error}") from error
    return Redis.from_pool(pool)


def _bounded(cluster: RedisCluster) -> RedisCluster:
    """Let a cluster's connections read with `_Parser`, which its constructor does not take."""
    nodes = cluster.nodes_manager.startup_nodes.values()
    for options in (cluster.get_connection_kwargs(), *(node.connection_kwargs for node in nodes)):
        options["parser_class"] = _Parser
    return cluster


def is_foreign(error: Exception) -> bool:
    """Whether Redis refuses because of what another program has put into a session's key."""
    return isinstance(error, ResponseError) and ("WRONGTYPE" in str(error) or "attempt to" in str(error))


@contextmanager
def index_intact() -> Iterator[None]:
    """Raise StoreUnavailableError if a part of the index is of another kind: lists would lack sessions."""
    try:
        yield
    except ResponseError as error:
        if not is_foreign(error):
            raise
        raise StoreUnavailableError(
            "the session store's index is damaged; contact the operator", RETRY_SECONDS
        ) from error


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of Redis and the network, and answers that are not Redis's, into StoreUnavailableError; log them."""
    try:
        yield
    except (ServerError, asyncio.CancelledError):
        raise
    except Exception as error:
        if is_foreign(error):
            raise CorruptRecordError(CHANGED) from error
        is_expected = isinstance(error, RedisError | RedisClusterException | OSError)
        # Anything else is an answer of a kind that no Redis gives, or an error of ours: the traceback says which.
        report = log.warning if is_expected else log.exception
        report("store_failed", error=f"{type(error).__name__}: {error}")
        what = "is out of memory" if isinstance(error, OutOfMemoryError) else "cannot be reached"
        raise StoreUnavailableError(f"the session store {what}", RETRY_SECONDS) from error
