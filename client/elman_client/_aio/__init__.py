"""The client for asyncio."""

from elman_client._aio.chat import AsyncChat
from elman_client._aio.client import AsyncClient
from elman_client._aio.generation import AsyncGeneration
from elman_client._aio.session import AsyncSession

__all__ = ["AsyncChat", "AsyncClient", "AsyncGeneration", "AsyncSession"]
