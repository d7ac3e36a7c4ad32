"""Encryption of what is stored: a store around another one, which then holds only the names of sessions in clear.

What is sealed is AES-256-GCM (NIST SP 800-38D) of one record: version, key id, nonce, ciphertext and tag. The name of
the session and the place of the record in it are authenticated with it, so that no record opens in another's place. An
older record of the same place does: anyone who can write to the store can set a session back to an older state.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from elman_server.domain.errors import CorruptRecordError, SettingsError
from elman_server.sessions.stores.base import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elman_server.sessions.stores.base import Store

VERSION: Final = b"\x82"  # no plain record's
UNPLACED_VERSION: Final = b"\x81"  # of earlier servers: bound to its session, and to nothing in it
HEAD: Final = -1  # the place of a head; that of a segment is its number in the session
KEY_BYTES: Final = 32
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12  # random; one key is good for 2**32 records (SP 800-38D, 8.3)
_HEADER_BYTES: Final = len(VERSION) + _ID_BYTES + _NONCE_BYTES
_HOW: Final = "put keys of 32 bytes in base64 there, one a line: openssl rand -base64 32"


def read_keys(source: str) -> list[bytes]:
    """Return the keys that `file:PATH` or `env:VARIABLE` holds: base64, split by white space.

    Raises:
        SettingsError: it holds none, or something else.
    """
    kind, _, where = source.partition(":")
    try:
        text = Path(where).read_text("ascii") if kind == "file" else os.environ[where]
        keys = [base64.b64decode(word, validate=True) for word in text.split()]
    except KeyError:
        raise SettingsError(f"--store-keys {source}: the variable is not set; {_HOW}") from None
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not base64"  # which might show the key
        raise SettingsError(f"--store-keys {source}: {reason}; {_HOW}") from None
    if not keys or any(len(key) != KEY_BYTES for key in keys) or len(set(keys)) < len(keys):
        raise SettingsError(f"--store-keys {source}: has {len(keys)} keys, not all of 32 bytes or not all new; {_HOW}")
    return keys


class SealedStore:
    """A store whose records are encrypted.

    Args:
        store: keeps what is sealed.
        keys: of 32 bytes; the first one seals, each one opens. To change the key put the new one first, and take the
            old one away when no session is left that was last used before.
    """

    keeps_objects = False

    def __init__(self, store: Store, keys: Sequence[bytes]) -> None:
        self._store = store
        self._ciphers = {hashlib.sha256(key).digest()[:_ID_BYTES]: AESGCM(key) for key in keys}
        self._first = next(iter(self._ciphers))
        self.is_shared = store.is_shared

    @property
    def in_use(self) -> Callable[[str], bool]:
        """Whether a turn runs on a session; see Store."""
        return self._store.in_use

    @in_use.setter
    def in_use(self, is_in_use: Callable[[str], bool]) -> None:
        self._store.in_use = is_in_use

    async def create(self, name: str, head: bytes, expires: float, segments: Sequence[bytes] = ()) -> int:
        """Keep a new session; see Store."""
        sealed = self._sealed(name, segments, 0)
        return await self._store.create(name, self._seal(name, HEAD, head), expires, sealed)

    async def load(self, name: str) -> Stored:
        """Return a session; raises CorruptRecordError; see Store."""
        return self._opened(name, await self._store.load(name))

    async def commit(
        self,
        name: str,
        revision: int,
        head: bytes,
        expires: float,
        segments: Sequence[bytes] = (),
        *,
        keep: int | None = None,
        place: int = 0,
    ) -> int:
        """Replace the head and add segments; see Store."""
        sealed = self._sealed(name, segments, place)
        return await self._store.commit(
            name, revision, self._seal(name, HEAD, head), expires, sealed, keep=keep, place=place
        )

    async def delete(self, name: str, revision: int | None) -> None:
        """Delete a session; see Store."""
        await self._store.delete(name, revision)

    async def page(self, after: str, limit: int) -> list[tuple[str, Stored]]:
        """Return sessions in name order; a head that cannot be opened is empty; see Store."""
        return [(name, self._shown(name, stored)) for name, stored in await self._store.page(after, limit)]

    async def segments(self, name: str, start: int = 0, end: int | None = None) -> list[bytes]:
        """Return a session's segments; raises CorruptRecordError; see Store."""
        found = await self._store.segments(name, start, end)
        return [self._open(name, at, sealed) for at, sealed in enumerate(found, start)]

    async def num_sessions(self) -> int:
        """Return how many sessions there are; see Store."""
        return await self._store.num_sessions()

    async def close(self) -> None:
        """Close files and connections."""
        await self._store.close()

    def _sealed(self, name: str, segments: Sequence[bytes], place: int) -> list[bytes]:
        return [self._seal(name, at, segment) for at, segment in enumerate(segments, place)]

    def _seal(self, name: str, place: int, record: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, record, _bound(VERSION, name, place))
        return VERSION + self._first + nonce + sealed

    def _open(self, name: str, place: int, sealed: bytes) -> bytes:
        version = sealed[:1]
        if version not in {VERSION, UNPLACED_VERSION}:
            raise CorruptRecordError("a stored record is not encrypted: it is older than --store-keys")
        key_id, nonce = sealed[1 : 1 + _ID_BYTES], sealed[1 + _ID_BYTES : _HEADER_BYTES]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise CorruptRecordError(f"a stored record needs the key {key_id.hex()}, which this server lacks")
        try:
            return cipher.decrypt(nonce, sealed[_HEADER_BYTES:], _bound(version, name, place))
        except (InvalidTag, ValueError) as error:  # ValueError: it is shorter than a nonce
            raise CorruptRecordError("a stored record was changed or belongs elsewhere") from error

    def _opened(self, name: str, stored: Stored) -> Stored:
        return Stored(self._open(name, HEAD, stored.head), stored.revision, stored.expires)

    def _shown(self, name: str, stored: Stored) -> Stored:
        try:
            return self._opened(name, stored)
        except CorruptRecordError:
            return Stored(b"", stored.revision, stored.expires)


def _bound(version: bytes, name: str, place: int) -> bytes:
    """Return what is authenticated with a record."""
    kind = "head" if place == HEAD else "segment"
    if version == UNPLACED_VERSION:
        return f"elman sealed 1\0{kind}\0{name}".encode()
    return f"elman sealed 2\0{kind}\0{name}".encode() + (b"" if place == HEAD else f"\0{place}".encode())
