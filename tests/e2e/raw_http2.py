"""An HTTP/2 client that does no more than it is told: it can stop to read, which no gRPC library lets one do."""

import socket
import struct
from types import TracebackType
from typing import Self

from tests.e2e.wire import GENERATE, PATIENCE

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


class RawCall:
    """One gRPC call on a connection of its own, of which nothing is read unless `read` is called.

    Args:
        headers: beside gRPC's own; values of less than 127 bytes, which no library has to like.
    """

    def __init__(self, address: str, message: bytes, **headers: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE)
        fields = {":method": "POST", ":scheme": "http", ":path": GENERATE, ":authority": address}
        fields |= {"content-type": "application/grpc", "te": "trailers"} | headers
        # HPACK without table and Huffman code (RFC 7541, 6.2.2): 0, length, name, length, value.
        encoded = b"".join(
            b"\0" + b"".join(bytes([len(part)]) + part.encode() for part in field) for field in fields.items()
        )
        body = b"\0" + struct.pack(">I", len(message)) + message
        self._socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, encoded)
            + _frame(_DATA, _END_STREAM, 1, body)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def read(self, size: int) -> bytes:
        """Read some bytes of what the server sends; no window is ever opened again."""
        return self._socket.recv(size)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
