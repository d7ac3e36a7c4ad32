"""Copies of a SQLite store: made while a server uses it, and put in its place where there is none."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from elman_server.domain.errors import BackupError
from elman_server.sessions.stores.sqlite import APPLICATION_ID, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator


def back_up(store: str, target: Path) -> int:
    """Copy the sessions of a store, and the key that signs snapshots if it lies beside; return how many there are.

    The copy is of one moment. A server may use the store meanwhile: it is not held up.

    Raises:
        BackupError: there is a file already, the store cannot be read, or the copy cannot be written.
    """
    source = _path_of(store)
    if not source.is_file():
        raise BackupError(f"{source} does not exist; --store says which sessions to copy")
    with _new_file(target) as draft:
        with _opened(source) as ours, contextlib.closing(sqlite3.connect(draft)) as copy:
            ours.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        number = _checked(draft)
    _copy_key(source, target)
    return number


def restore(source: Path, store: str) -> int:
    """Put a copy in the place of a store that does not exist; return how many sessions there are.

    Raises:
        BackupError: there is a store already, which a server may use, or the copy is not one of `back_up`.
    """
    target = _path_of(store)
    if not source.is_file():
        raise BackupError(f"{source} does not exist; name a file that `elman-server backup` has written")
    if leftovers := [path for path in (Path(f"{target}-wal"), Path(f"{target}-shm")) if path.exists()]:
        raise BackupError(f"{leftovers[0]} exists: a server may use this store; stop it, and move its files away")
    with _new_file(target) as draft:
        shutil.copyfile(source, draft)
        number = _checked(draft)
    _copy_key(source, target)
    return number


def _path_of(store: str) -> Path:
    scheme, _, path = store.partition(":")
    if scheme != "sqlite":
        hint = "is lost with its process" if scheme == "memory" else "has its own tools: docs/operations.md"
        raise BackupError(f"--store {scheme}: {hint}; backup and restore are for sqlite:PATH")
    return Path(path)


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """Give a draft to write; at the end it is on the disk and has its name, if nothing else has."""
    if target.exists():
        raise BackupError(f"{target} exists; move it away, or name another file")
    draft = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    try:
        draft.touch(mode=0o600, exist_ok=False)  # transcripts are private
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.link(draft, target)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BackupError(f"{target}: {reason}; nothing was written") from error
    finally:
        for leftover in (draft, Path(f"{draft}-journal")):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, timeout=5.0)) as connection:
        connection.execute("PRAGMA query_only = ON")
        yield connection


def _checked(path: Path) -> int:
    """Return the number of sessions in a file; raises BackupError if it is not a sound store of ours."""
    with _opened(path) as connection:
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
                raise BackupError("the file does not hold the sessions of this version of the server")
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise BackupError(f"the file is damaged: {state}")
            (number,) = connection.execute("SELECT num_sessions FROM counters").fetchone()
        except sqlite3.DatabaseError as error:
            raise BackupError(f"the file is damaged: {error}") from error
        return int(number)


def _copy_key(source: Path, target: Path) -> None:
    """Copy the key of snapshots, if there is one and the target has none."""
    key, copy = Path(f"{source}.key"), Path(f"{target}.key")
    if key.is_file() and not copy.exists():
        with _new_file(copy) as draft:
            shutil.copyfile(key, draft)
