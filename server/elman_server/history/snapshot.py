"""Snapshots: a session as bytes that may leave the server: versioned, checksummed, signed.

    b"ELMAN" | version, 1 byte | HMAC-SHA256, 32 bytes | SHA-256, 32 bytes | msgpack of [head, [segment, …]]

The SHA-256 covers the body and shows damage; the HMAC covers all but itself and shows who wrote it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.owner import ANONYMOUS
from elman_server.sessions.records import Head, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = 1
_MAGIC: Final = b"ELMAN"
_HASH_BYTES: Final = 32
_BODY_AT: Final = len(_MAGIC) + 1 + 2 * _HASH_BYTES
_FIELD: Final = "snapshot"


class _Body(msgspec.Struct, frozen=True, array_like=True):
    head: Head
    segments: list[Segment]


def seal(key: bytes, head: Head, segments: Sequence[Segment]) -> bytes:
    """Return a session as a snapshot."""
    body = msgspec.msgpack.encode(_Body(head, list(segments)))
    start, checksum = _MAGIC + bytes([VERSION]), hashlib.sha256(body).digest()
    return start + _sign(key, head.owner, start, checksum) + checksum + body


def unseal(key: bytes, snapshot: bytes, owner: str = ANONYMOUS) -> tuple[Head, list[Segment]]:
    """Return what a snapshot holds that was an owner's, or nobody's.

    Raises:
        InvalidFieldError: it is not a snapshot, of another version, damaged, signed with another key or of another
            owner.
    """
    if not snapshot.startswith(_MAGIC) or len(snapshot) < _BODY_AT:
        raise InvalidFieldError(_FIELD, "is no snapshot of a session; `elman sessions export` writes one")
    start, rest = snapshot[: len(_MAGIC) + 1], snapshot[len(_MAGIC) + 1 :]
    if start[-1] != VERSION:
        raise InvalidFieldError(_FIELD, f"has version {start[-1]}, this server reads {VERSION}; export it again")
    signature, checksum, body = rest[:_HASH_BYTES], rest[_HASH_BYTES : 2 * _HASH_BYTES], rest[2 * _HASH_BYTES :]
    if hashlib.sha256(body).digest() != checksum:
        raise InvalidFieldError(_FIELD, "is damaged: it does not match its checksum; export it again")
    if not any(hmac.compare_digest(_sign(key, of, start, checksum), signature) for of in (owner, ANONYMOUS)):
        raise InvalidFieldError(
            _FIELD,
            "was signed with another key, or is not yours; import it where it was exported, or set the same "
            "--snapshot-key",
        )
    try:
        found = msgspec.msgpack.decode(body, type=_Body)
    except msgspec.MsgspecError as error:
        raise InvalidFieldError(_FIELD, "cannot be read by this server; export it again") from error
    return found.head, found.segments


def _sign(key: bytes, owner: str, start: bytes, checksum: bytes) -> bytes:
    # The checksum stands for the body: anyone who can find another body of the same SHA-256 can forge the HMAC, too.
    if owner:
        key = hmac.digest(key, b"elman snapshot of " + owner.encode(), "sha256")
    return hmac.digest(key, start + checksum, "sha256")
