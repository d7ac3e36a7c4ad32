"""A gRPC client of few instructions: HTTP/2 frames written by hand.

A client of `grpc.aio` needs as much CPU for a short turn as a server that only sends its messages, so it would be the
bottleneck. This one needs a fraction. It knows what the loads need: calls with one request, on one connection without
TLS. Any other event of the connection is an error.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Final, Protocol

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x8
ACK = END_STREAM = 0x1
END_HEADERS: Final = 0x4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 0x1, 0x4
LARGEST_WINDOW: Final = 2**31 - 1
FIRST_WINDOW: Final = 2**16 - 1
STATUS_OK: Final = b"grpc-status\x010"  # a literal: the header table has size 0

_FRAME: Final = struct.Struct(">BHBBL")  # length in two parts, type, flags, stream
_MESSAGE: Final = struct.Struct(">BL")  # is compressed, length


class Receiver(Protocol):
    """What a call delivers to."""

    def message(self, data: bytes) -> None:
        """Receive one message."""

    def end(self) -> None:
        """See the call end with the status OK."""


class Connection(asyncio.Protocol):
    """A connection to one server.

    Args:
        address: host and port of the server.

    Attributes:
        failure: is done, with an exception, if the connection or a call fails.
    """

    def __init__(self, address: str) -> None:
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._address = address
        self._transport: Any = None
        self._rest = b""
        self._out: list[bytes] = []
        self._next_stream = 1
        self._window = FIRST_WINDOW
        self._calls: dict[int, _Call] = {}
        self._headers: dict[str, bytes] = {}

    @classmethod
    async def open(cls, address: str) -> Connection:
        """Connect to a server."""
        host, _, port = address.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(address), host, int(port))
        return connection

    def call(self, path: str, request: bytes, receiver: Receiver) -> None:
        """Begin a call; `flush` sends it."""
        if path not in self._headers:
            self._headers[path] = _header_block(path, self._address)
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        body = _MESSAGE.pack(0, len(request)) + request
        self._window -= len(body)
        if self._window < 0:
            raise RuntimeError("the server does not read its requests")
        self._calls[stream] = _Call(receiver)
        self._out += [_frame(HEADERS, END_HEADERS, stream, self._headers[path]), _frame(DATA, END_STREAM, stream, body)]

    def flush(self) -> None:
        """Send what was begun, in one write."""
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def close(self) -> None:
        """Close the connection; calls that run are cancelled."""
        self.failure.cancel()
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """Send the settings: no header table, and windows that never fill."""
        self._transport = transport
        settings = struct.pack(">HLHL", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
        window = struct.pack(">L", LARGEST_WINDOW - FIRST_WINDOW)
        self._out += [PREFACE, _frame(SETTINGS, 0, 0, settings), _frame(WINDOW_UPDATE, 0, 0, window)]
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail if this side did not close it."""
        self._fail(f"the server closed the connection: {exc}")

    def data_received(self, data: bytes) -> None:
        """Read all whole frames, then send what they caused."""
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        while at + _FRAME.size <= size:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            begin = at + _FRAME.size
            end = begin + (high << 16 | low)
            if end > size:
                break
            self._read(kind, flags, stream, data[begin:end])
            at = end
        self._rest = data[at:]
        self.flush()

    def _read(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._calls[stream].data(payload)
        elif kind == HEADERS and not flags & END_STREAM:
            pass  # the initial metadata
        elif kind == HEADERS and STATUS_OK in payload:
            self._calls.pop(stream).receiver.end()
        elif kind == WINDOW_UPDATE:
            self._window += 0 if stream else int.from_bytes(payload, "big")
        elif kind in {SETTINGS, PING}:
            if not flags & ACK:
                self._out.append(_frame(kind, ACK, 0, payload if kind == PING else b""))
        else:
            self._fail(f"frame {kind} of stream {stream}: {payload!r}")

    def _fail(self, what: str) -> None:
        if not self.failure.done():
            self.failure.set_exception(RuntimeError(what))


class _Call:
    """Cuts the data of one call into messages."""

    __slots__ = ("_rest", "receiver")

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._rest = b""

    def data(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        while at + _MESSAGE.size <= size:
            _, length = _MESSAGE.unpack_from(data, at)
            end = at + _MESSAGE.size + length
            if end > size:
                break
            self.receiver.message(data[at + _MESSAGE.size : end])
            at = end
        self._rest = data[at:]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _header_block(path: str, address: str) -> bytes:
    """Return the headers of a call as literals that no table needs to know; each is shorter than 127 bytes."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": address,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
