"""The key that signs snapshots: from a file of the operator, from a file beside the store, or of this process.

The one before is kept beside it for a while, so that what it signed can still be read.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import SettingsError

if TYPE_CHECKING:
    from elman_server.process.settings import Settings

MIN_KEY_BYTES: Final = 32


def snapshot_key(settings: Settings) -> bytes:
    """Return the key that signs snapshots.

    With `sqlite:PATH` and no setting it lies in `PATH.key`, so that a session that was saved can be imported after a
    restart.

    Raises:
        SettingsError: a file cannot be read or written, or is too short.
    """
    path = _path(settings)
    if path is None:
        return secrets.token_bytes(MIN_KEY_BYTES)
    if settings.snapshot_key is None and not path.exists():
        _make(path)
    return _read(path)


def old_snapshot_key(settings: Settings) -> bytes | None:
    """Return the key before, whose snapshots are read as well: from the key's file with `.old` behind its name.

    Raises:
        SettingsError: the file is there and cannot be read, or is too short.
    """
    path = _path(settings)
    old = None if path is None else path.with_name(f"{path.name}.old")
    return _read(old) if old is not None and old.exists() else None


def _path(settings: Settings) -> Path | None:
    """Return the file of the key; None: the key is of the process."""
    scheme, _, store = settings.store.partition(":")
    return settings.snapshot_key or (Path(f"{store}.key") if scheme == "sqlite" else None)


def _make(path: Path) -> None:
    """Write a new key to a file that only its owner can read; whole, because another server may start now."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        with draft.open("wb") as file:
            file.write(secrets.token_bytes(MIN_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # the other server's key is as good
        finally:
            draft.unlink()
    except OSError as error:
        raise SettingsError(
            f"cannot write the snapshot key {path}: {error.strerror}; name another file with --snapshot-key"
        ) from error


def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read the snapshot key {path}: {error.strerror}; see --snapshot-key") from error
    if len(key) < MIN_KEY_BYTES:
        raise SettingsError(
            f"the snapshot key {path} has {len(key)} bytes; it needs at least {MIN_KEY_BYTES}, as from "
            f"`head -c 32 /dev/urandom`"
        )
    return key
