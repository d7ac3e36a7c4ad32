"""How long a client waits for a server that it has lost, and how soon it notices."""

import pytest

from elman_client import UnavailableError
from elman_client._shared import connection
from elman_client._shared.connection import Connection
from elman_client._shared.retrying import Attempts
from tests.chaos.proxy import Proxy
from tests.client.fake_memory import drawn


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def attempts(clock) -> Attempts:
    """Those of a client that waits for 30 s."""
    del clock  # set before they begin
    settings = Connection(
        "x", tls=False, root_certificates=None, credentials=None, metadata=None, timeout=None, retry_seconds=30
    )
    return Attempts(settings, None, is_safe=True)


def test_patience_counts_from_the_loss(clock, attempts):
    """A stream was silent for an hour, then its connection breaks: from there on there are retry_seconds."""
    attempts.succeeded()
    clock[0] += 3600
    assert attempts.delay(UnavailableError("gone")) is not None
    clock[0] += 25
    assert attempts.delay(UnavailableError("gone")) is not None
    clock[0] += 6
    assert attempts.delay(UnavailableError("gone")) is None


def test_patience_begins_anew_when_something_comes(clock, attempts):
    """The next loss is another one."""
    attempts.succeeded()
    attempts.delay(UnavailableError("gone"))
    clock[0] += 20
    attempts.succeeded()
    clock[0] += 20
    assert attempts.delay(UnavailableError("gone")) is not None


async def test_a_connection_that_swallows_is_left(connect, server, monkeypatch):
    """Nothing comes and nothing breaks, as where a NAT forgot: the client notices, connects again and continues."""
    quick = tuple(
        (name, min(value, 500) if "keepalive" in name or "ping" in name else value)
        for name, value in connection.CHANNEL_OPTIONS
    )
    monkeypatch.setattr(connection, "CHANNEL_OPTIONS", quick)
    server.servicer.seconds_per_chunk = 0.02
    proxy = Proxy(int(server.target.rsplit(":", 1)[1]))
    try:
        async with connect(f"127.0.0.1:{proxy.port}") as client:
            session = await client.create_session("tiny")
            generation = session.generate("a", max_chars=80)
            text = await anext(generation)
            proxy.swallow()
            text += "".join([piece async for piece in generation])
            assert text == "".join(map(drawn, range(1, 81)))
            proxy.swallow()  # and on an idle connection
            assert (await session.refresh()).position == 81
    finally:
        proxy.close()


def test_a_dead_peer_is_found_in_twenty_seconds():
    """After so long without a word comes a ping, and after so long without its answer the end."""
    options = dict(connection.CHANNEL_OPTIONS)
    for answer in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        assert options["grpc.keepalive_time_ms"] + options[answer] <= 20_000
