"""Where sessions are kept: one interface, one module a store."""

from elman_server.stores.base import Store, Stored
from elman_server.stores.memory import MemoryStore

__all__ = ["MemoryStore", "Store", "Stored"]
