from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from elman_client import AsyncClient, Client
from tests.client.adapter import Blocking
from tests.client.fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server of two models."""
    with FakeServer() as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def connect(request) -> Callable[..., Any]:
    """A client's constructor, once for each of the twins."""
    if request.param == "async":
        return AsyncClient
    return lambda target, **options: Blocking(Client(target, **options))


@pytest.fixture
async def client(connect, server) -> AsyncIterator[Any]:
    """A client of the fake server that gives up at once."""
    async with connect(server.target, retry_seconds=0) as connected:
        yield connected


@pytest.fixture
async def session(client) -> Any:
    """A session at its beginning."""
    return await client.create_session("shakespeare", session_id="mine", seed=7)
