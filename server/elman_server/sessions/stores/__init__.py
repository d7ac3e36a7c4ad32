"""The stores of sessions: one interface, one module per store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman_server.domain.errors import SettingsError
from elman_server.sessions.stores.base import Store, Stored
from elman_server.sessions.stores.memory import MemoryStore
from elman_server.sessions.stores.sqlite import SqliteStore
from elman_server.sessions.stores.timed import TimedStore

if TYPE_CHECKING:
    from elman_server.process.settings import Settings

__all__ = ["MemoryStore", "SqliteStore", "Store", "Stored", "open_store"]


def open_store(settings: Settings) -> Store:
    """Return the store that the settings name.

    Raises:
        SettingsError: it cannot be opened. A Redis that does not answer is not an error: it may answer later.
    """
    store = _open_sealed(settings)
    return store if store.keeps_objects else TimedStore(store)  # memory takes no time worth a look


def _open_sealed(settings: Settings) -> Store:
    if settings.store_keys is None:
        return _open_plain(settings)
    sealed = _extra("sealed", "encryption", "--store-keys")
    keys = sealed.read_keys(settings.store_keys)
    store: Store = sealed.SealedStore(_open_plain(settings), keys)
    return store


def _open_plain(settings: Settings) -> Store:
    scheme, _, path = settings.store.partition(":")
    if scheme == "memory":
        return MemoryStore(settings.max_sessions, settings.max_session_bytes)
    if scheme == "sqlite":
        return SqliteStore(Path(path), settings.max_sessions, max_bytes=settings.max_store_bytes)
    redis = _extra("redis.store", "redis", f"--store {scheme}:")
    store: Store = redis.RedisStore(settings.store, settings.store_timeout_seconds)
    return store


def _extra(module: str, extra: str, flag: str) -> Any:
    """Return a module whose libraries are optional."""
    try:
        return importlib.import_module(f"elman_server.sessions.stores.{module}")
    except ImportError as error:
        raise SettingsError(f"{flag} needs more libraries: pip install 'elman[{extra}]'") from error
