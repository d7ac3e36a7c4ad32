"""What a route gets of its caller: a client that sends the caller's key."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from elman_client import AsyncClient


async def _client(request: Request) -> AsyncIterator[AsyncClient]:
    async with request.app.state.clients.of(request.headers.get("authorization", "")) as client:
        yield client


Client = Annotated[AsyncClient, Depends(_client)]
