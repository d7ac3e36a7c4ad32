"""The protocol between the server and an engine process: msgpack messages in frames over a socket pair."""

from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server.engine.job import Job, Output
from elman_server.models.registry import ModelInfo

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

_HEADER: Final = struct.Struct("<I")
_RECEIVE_BYTES: Final = 1 << 20


class Configure(msgspec.Struct, tag=True, frozen=True):
    """To the engine, first: what to load and how to run it.

    Attributes:
        load_seconds: how long loading may take.
        load_bytes: how much memory it may take, beside LOAD_FACTOR times the file.
    """

    path: str
    capacity: int
    num_threads: int
    flush_seconds: float
    num_engines: int = 1
    load_seconds: float = 300.0
    load_bytes: int = 4 << 30


class OpenJob(msgspec.Struct, tag=True, frozen=True):
    """To the engine: a new job."""

    stream: int
    job: Job


class Allow(msgspec.Struct, tag=True, frozen=True):
    """To the engine: how many more characters readers allow, by stream."""

    num_chars: dict[int, int]


class CloseJob(msgspec.Struct, tag=True, frozen=True):
    """To the engine: end a job at once."""

    stream: int


class Ping(msgspec.Struct, tag=True, frozen=True):
    """To the engine: send a Pong."""


class Report(msgspec.Struct, frozen=True):
    """What an engine has counted since its last report; histograms with the bounds of `ModelCounters`.

    Attributes:
        steps, step_seconds: seconds of a step, and their sum.
        batches, num_rows: rows of a step, and their sum.
        waits, wait_seconds: seconds that jobs waited for a place, and their sum.
        cpu_seconds: of the processor.
    """

    steps: list[int]
    step_seconds: float
    batches: list[int]
    num_rows: float
    waits: list[int]
    wait_seconds: float
    cpu_seconds: float


class Pong(msgspec.Struct, tag=True, frozen=True):
    """From the engine: it does not hang, and what it has counted."""

    report: Report


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From the engine, first: the model is loaded and proved.

    Attributes:
        limited_by: why it runs with fewer threads than it was given; "" if it does not.
        num_computed_rows: how many rows a step computes for each that it is asked for.
    """

    model: ModelInfo
    num_threads: int
    limited_by: str = ""
    num_computed_rows: int = 1


class Refused(msgspec.Struct, tag=True, frozen=True):
    """From the engine, first: the model cannot be served, or not with this number of threads."""

    message: str
    has_too_many_threads: bool = False


class Outputs(msgspec.Struct, tag=True, frozen=True):
    """From the engine: everything that one flush brings."""

    outputs: list[Output]


ToEngine = Configure | OpenJob | Allow | CloseJob | Ping
FromEngine = Ready | Refused | Outputs | Pong
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def frame(message: ToEngine | FromEngine) -> bytes:
    """Return a message as it is sent over the socket."""
    body = msgspec.msgpack.encode(message)
    return _HEADER.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader) -> FromEngine:
    """Return the engine's next message; raises asyncio.IncompleteReadError when it is down."""
    (size,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    return _from_engine.decode(await reader.readexactly(size))


class EngineLink:
    """The engine's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def send(self, message: FromEngine) -> None:
        """Send a message; wait while the server is behind, which the windows of the streams bound."""
        self._socket.sendall(frame(message))

    def receive(self, *, wait: bool) -> Iterator[ToEngine]:
        """Yield the messages that have arrived; `wait` for the first one.

        Raises:
            EOFError: the server is down.
        """
        if wait or select.select([self._socket], [], [], 0)[0]:
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                raise EOFError
            self._buffer += received
        yield from self._messages()

    def _messages(self) -> Iterator[ToEngine]:
        at = 0
        while len(self._buffer) - at >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._buffer, at)
            end = at + _HEADER.size + size
            if end > len(self._buffer):
                break
            yield _to_engine.decode(self._buffer[at + _HEADER.size : end])
            at = end
        del self._buffer[:at]
