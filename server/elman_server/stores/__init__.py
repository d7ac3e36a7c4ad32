"""Where sessions are kept: one interface, one module a store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from elman_server.errors import SettingsError
from elman_server.stores.base import Store, Stored
from elman_server.stores.memory import MemoryStore
from elman_server.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from elman_server.settings import Settings

__all__ = ["MemoryStore", "SqliteStore", "Store", "Stored", "open_store"]


def open_store(settings: Settings) -> Store:
    """Return the store that the settings name.

    Raises:
        SettingsError: it cannot be opened. That Redis does not answer is no reason: it may come later.
    """
    scheme, _, path = settings.store.partition(":")
    if scheme == "memory":
        return MemoryStore(settings.max_sessions, settings.max_session_bytes)
    if scheme == "sqlite":
        return SqliteStore(Path(path), settings.max_sessions)
    try:
        redis = importlib.import_module("elman_server.stores.redis")
    except ImportError as error:
        raise SettingsError(f"--store {scheme}: needs the extra: pip install 'elman[redis]'") from error
    store: Store = redis.RedisStore(settings.store, settings.store_timeout_seconds)
    return store
