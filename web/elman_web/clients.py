"""One client a caller: the caller's own bearer token goes with every call to the server."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from elman_client import AsyncClient, ResourceExhaustedError
from elman_web.settings import Settings

_MAX_IDLE = 32
_MAX_CLIENTS = 256


@dataclass
class _Shared:
    client: AsyncClient
    num_users: int = 0


class Clients:
    """The clients of one server, by the `authorization` header that they send; few, and all on one connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: OrderedDict[str, _Shared] = OrderedDict()  # the least recently used first
        self._make("")  # settings that no client can be made of fail at the start

    @asynccontextmanager
    async def of(self, authorization: str) -> AsyncIterator[AsyncClient]:
        """Yield the client of a caller; it is not closed while anybody has it.

        Raises:
            ResourceExhaustedError: Too many different callers at once.
            InvalidArgumentError: The header cannot be sent on.
        """
        shared = self._clients.get(authorization) or self._make(authorization)
        self._clients.move_to_end(authorization)
        shared.num_users += 1
        try:
            yield shared.client
        finally:
            shared.num_users -= 1
            await self._close_idle(_MAX_IDLE)

    async def aclose(self) -> None:
        """Close all that nobody uses."""
        await self._close_idle(0)

    def _make(self, authorization: str) -> _Shared:
        if len(self._clients) >= _MAX_CLIENTS:
            raise ResourceExhaustedError("too many callers with different keys at once", reason="TOO_MANY_KEYS")
        settings = self._settings
        client = AsyncClient(
            settings.target,
            tls=settings.tls,
            root_certificates=settings.root_certificates,
            metadata={"authorization": authorization} if authorization else None,
        )
        self._clients[authorization] = _Shared(client)
        return self._clients[authorization]

    async def _close_idle(self, num_kept: int) -> None:
        idle = [key for key, shared in self._clients.items() if not shared.num_users]
        for key in idle[: max(0, len(self._clients) - num_kept)]:
            await self._clients.pop(key).client.aclose()
