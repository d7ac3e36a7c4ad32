"""The protobuf wire format, as much as it takes to walk a message without its schema.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES: Final = 10


class WireError(ValueError):
    """The bytes are not a whole protobuf message."""


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield every field's number and value: an int for a varint, else its bytes.

    Raises:
        WireError: the message is cut or malformed.
    """
    view, at = memoryview(data), 0
    while at < len(view):
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(view, at)
        elif kind in {_FIXED32, _FIXED64}:
            size = 4 if kind == _FIXED32 else 8
        else:
            raise WireError(f"wire type {kind}")
        if number == 0 or at + size > len(view):
            raise WireError("cut short")
        yield number, view[at : at + size]
        at += size


def messages(data: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """Yield the bytes of every length-delimited field of one number."""
    for found, value in fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def varints(data: memoryview) -> list[int]:
    """Return the numbers of a packed field.

    Raises:
        WireError: the field is cut.
    """
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def encode(number: int, value: bytes) -> bytes:
    """Return one length-delimited field."""
    return header(number, len(value)) + value


def header(number: int, size: int) -> bytes:
    """Return what precedes the bytes of a length-delimited field."""
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(size)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    result = 0
    for index, byte in enumerate(view[at : at + _MAX_VARINT_BYTES]):
        result |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004  the format's continuation bit
            return result, at + index + 1
    raise WireError("a varint without end")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
