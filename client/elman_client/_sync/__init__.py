"""The client with blocking calls."""

from elman_client._sync.chat import Chat
from elman_client._sync.client import Client
from elman_client._sync.generation import Generation
from elman_client._sync.session import Session

__all__ = ["Chat", "Client", "Generation", "Session"]
