"""Snapshots: a session as bytes that may leave the server: versioned, checksummed, signed.

    b"ELMAN" | version, 1 byte | HMAC-SHA256, 32 bytes | SHA-256, 32 bytes | body

The body of version 2 is the head and each segment, in msgpack, with its length before it in 4 bytes, little-endian;
that of version 1 is msgpack of [head, [segment, …]]. The SHA-256 covers the body and shows damage; the HMAC covers all
but itself and shows who wrote it. Large sessions are written and read in pieces, and other tasks run between.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import struct
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.owner import ANONYMOUS
from elman_server.sessions.records import Head, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = 2
_WHOLE_VERSION: Final = 1  # of earlier servers
_MAGIC: Final = b"ELMAN"
_HASH_BYTES: Final = 32
_BODY_AT: Final = len(_MAGIC) + 1 + 2 * _HASH_BYTES
_LENGTH: Final = struct.Struct("<I")
_TOGETHER: Final = 16  # segments that are written or read at once
_FIELD: Final = "snapshot"

_Record = TypeVar("_Record", Head, Segment)


class _Body(msgspec.Struct, frozen=True, array_like=True):
    head: Head
    segments: list[Segment]


async def seal(key: bytes, head: Head, segments: Sequence[Segment]) -> bytes:
    """Return a session as a snapshot."""
    body, checksum = bytearray(), hashlib.sha256()
    records: list[Head | Segment] = [head, *segments]
    for at in range(0, len(records), _TOGETHER):
        encoded = [msgspec.msgpack.encode(record) for record in records[at : at + _TOGETHER]]
        piece = b"".join(_LENGTH.pack(len(record)) + record for record in encoded)
        body += piece
        checksum.update(piece)
        await asyncio.sleep(0)
    start = _MAGIC + bytes([VERSION])
    return b"".join((start, _sign(key, head.owner, start, checksum.digest()), checksum.digest(), body))


async def unseal(
    key: bytes, snapshot: bytes, owner: str = ANONYMOUS, old_key: bytes | None = None
) -> tuple[Head, list[Segment]]:
    """Return what a snapshot holds that was an owner's, or nobody's, and was signed with one of the keys.

    Raises:
        InvalidFieldError: it is not a snapshot, of another version, damaged, signed with another key or of another
            owner.
    """
    if not snapshot.startswith(_MAGIC) or len(snapshot) < _BODY_AT:
        raise InvalidFieldError(_FIELD, "is no snapshot of a session; `elman sessions export` writes one")
    start, body = snapshot[: len(_MAGIC) + 1], memoryview(snapshot)[_BODY_AT:]
    if start[-1] not in {VERSION, _WHOLE_VERSION}:
        raise InvalidFieldError(_FIELD, f"has version {start[-1]}, this server reads {VERSION}; export it again")
    signature = snapshot[len(start) : len(start) + _HASH_BYTES]
    checksum = snapshot[_BODY_AT - _HASH_BYTES : _BODY_AT]
    if hashlib.sha256(body).digest() != checksum:
        raise InvalidFieldError(_FIELD, "is damaged: it does not match its checksum; export it again")
    signers = [(one, of) for one in (key, old_key) if one is not None for of in (owner, ANONYMOUS)]
    if not any(hmac.compare_digest(_sign(one, of, start, checksum), signature) for one, of in signers):
        raise InvalidFieldError(
            _FIELD,
            "was signed with another key, or is not yours; import it where it was exported, or set the same "
            "--snapshot-key",
        )
    try:
        if start[-1] == _WHOLE_VERSION:
            found = msgspec.msgpack.decode(body, type=_Body)
            return found.head, found.segments
        return await _records(body)
    except (msgspec.MsgspecError, struct.error) as error:
        raise InvalidFieldError(_FIELD, "cannot be read by this server; export it again") from error


async def _records(body: memoryview) -> tuple[Head, list[Segment]]:
    head, at = _next(body, 0, Head)
    segments = []
    while at < len(body):
        segment, at = _next(body, at, Segment)
        segments.append(segment)
        if len(segments) % _TOGETHER == 0:
            await asyncio.sleep(0)
    return head, segments


def _next(body: memoryview, at: int, kind: type[_Record]) -> tuple[_Record, int]:
    (size,) = _LENGTH.unpack_from(body, at)
    end = at + _LENGTH.size + size
    return msgspec.msgpack.decode(body[at + _LENGTH.size : end], type=kind), end


def _sign(key: bytes, owner: str, start: bytes, checksum: bytes) -> bytes:
    # The checksum stands for the body: anyone who can find another body of the same SHA-256 can forge the HMAC, too.
    if owner:
        key = hmac.digest(key, b"elman snapshot of " + owner.encode(), "sha256")
    return hmac.digest(key, start + checksum, "sha256")
