"""HTTP/2 as an attacker writes it: frames and no more."""

import socket
import struct
import threading
from collections.abc import Sequence
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS = 1, 4
CANCEL: Final = struct.pack(">I", 8)
_HUGE_WINDOW: Final = 2**30


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(path: str, stream: int, flags: int = END_HEADERS) -> bytes:
    """Return the HEADERS frame of a gRPC call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    # HPACK without table and Huffman code (RFC 7541, 6.2.2): 0, length, name, length, value.
    block = b"".join(b"\0" + b"".join(bytes([len(part)]) + part.encode() for part in field) for field in fields.items())
    return frame(HEADERS, flags, stream, block)


def message(data: bytes, announced: int | None = None) -> bytes:
    """Return a gRPC message, which may announce more bytes than it has."""
    return b"\0" + struct.pack(">I", len(data) if announced is None else announced) + data


class Connection:
    """A connection whose answers are read and thrown away, by a thread, or are not read at all."""

    def __init__(self, address: str, *, reads: bool = True, window: int = 65535) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 30)
        initial = struct.pack(">HI", 4, window)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, initial))
        if reads:
            self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _HUGE_WINDOW)))
            threading.Thread(target=self._read, daemon=True).start()

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send frames; False: the server has closed the connection, or takes nothing."""
        try:
            self.socket.sendall(b"".join(parts))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Leave."""
        self.socket.close()

    def _read(self) -> None:
        try:
            while self.socket.recv(1 << 16):
                pass
        except OSError:
            pass
