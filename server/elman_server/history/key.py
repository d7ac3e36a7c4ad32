"""The key that signs snapshots: from a file of the operator, from a file beside the store, or of this process."""

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
    if settings.snapshot_key is not None:
        return _read(settings.snapshot_key)
    scheme, _, path = settings.store.partition(":")
    if scheme != "sqlite":
        return secrets.token_bytes(MIN_KEY_BYTES)
    beside = Path(f"{path}.key")
    if not beside.exists():
        _make(beside)
    return _read(beside)


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
