"""Records: a session as it is stored: versioned, checksummed bytes. No pickle.

A session is a *head*, rewritten by every commit, and *segments*, one a turn, which are only ever added: a turn
never rewrites the past.
"""

from __future__ import annotations

import array
import zlib
from typing import Final, TypeVar

import msgspec

from elman_server.errors import CorruptRecordError
from elman_server.state import DEFAULT, Memory

VERSION: Final = b"\x01"
_CRC_BYTES: Final = 4
_ID_TYPES: Final = {1: "B", 2: "H", 4: "I"}


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a session is now.

    Attributes:
        model, model_version, model_digest: what it is pinned to.
        created, updated: unix seconds.
        ttl: idle seconds; None if `expires` is a fixed moment.
        expires: unix seconds.
        last: unix seconds that no use postpones.
        owner: kept for authentication.
        initial_state: the name of the one that it started from.
    """

    model: str
    model_version: str
    model_digest: str
    created: float
    updated: float
    ttl: float | None
    expires: float
    last: float
    seed: int
    labels: dict[str, str]
    position: int
    turn_count: int
    memory: Memory
    owner: str = ""
    initial_state: str = DEFAULT


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """One turn: the ids from `start` on, of which those before `prompt_end` were fed."""

    start: int
    prompt_end: int
    seed: int
    id_bytes: int
    packed: bytes

    @classmethod
    def of(cls, start: int, prompt: list[int], drawn: list[int], seed: int) -> Segment:
        """Pack a turn's ids in as few bytes as the largest takes."""
        ids = [*prompt, *drawn]
        size = next(size for size in _ID_TYPES if max(ids, default=0) < 1 << 8 * size)
        return cls(start, start + len(prompt), seed, size, array.array(_ID_TYPES[size], ids).tobytes())

    @property
    def ids(self) -> list[int]:
        """The ids that were fed and drawn."""
        return array.array(_ID_TYPES[self.id_bytes], self.packed).tolist()

    @property
    def end(self) -> int:
        """One past the last position."""
        return self.start + len(self.packed) // self.id_bytes


_Kind = TypeVar("_Kind", Head, Segment)


def encode(record: Head | Segment) -> bytes:
    """Return the stored bytes: version, CRC-32 of the rest, msgpack."""
    body = msgspec.msgpack.encode(record)
    return VERSION + zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body


def decode(data: bytes, kind: type[_Kind]) -> _Kind:
    """Return what was stored.

    Raises:
        CorruptRecordError: another version, or a changed byte.
    """
    if data[:1] != VERSION:
        raise CorruptRecordError(f"a stored record has version {data[:1].hex() or 'none'}, this server reads 01")
    body = data[1 + _CRC_BYTES :]
    if zlib.crc32(body).to_bytes(_CRC_BYTES, "little") != data[1 : 1 + _CRC_BYTES]:
        raise CorruptRecordError("a stored record does not match its checksum")
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise CorruptRecordError("a stored record cannot be read") from error
