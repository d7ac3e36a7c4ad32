"""The floor: a `grpc.aio` server whose Generate only sends messages. What gRPC costs without us.

`python -m benchmarks.floor_server [FILE]`; the same port line, options and event loop as Elman's. FILE is a JSON list
of turns, each a list of messages in hexadecimal; the calls get one turn after another. Without it, a call gets what
Elman sends first, and stays open.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import uvloop

from elman.v1.generation_pb2 import Chunk, GenerateRequest, GenerateResponse, Started
from elman.v1.generation_pb2_grpc import GenerationServiceServicer, add_GenerationServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MANY = 100_000


class OpenStreams(GenerationServiceServicer):
    """Holds streams open."""

    async def Generate(  # noqa: N802  named by the contract
        self, _: GenerateRequest, __: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[GenerateResponse]:
        """Answer as Elman begins, then wait until the caller cancels."""
        yield GenerateResponse(started=Started())
        yield GenerateResponse(chunk=Chunk(text="A", position=1))
        await asyncio.Event().wait()


class RecordedTurns(GenerationServiceServicer):
    """Sends recorded turns."""

    def __init__(self, path: Path) -> None:
        turns = json.loads(path.read_text())
        self._turns = itertools.cycle(
            [[GenerateResponse.FromString(bytes.fromhex(data)) for data in turn] for turn in turns]
        )

    async def Generate(  # noqa: N802  named by the contract
        self, _: GenerateRequest, __: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[GenerateResponse]:
        """Send the messages of a turn."""
        for message in next(self._turns):
            yield message


async def main(*recorded: str) -> None:
    """Serve until SIGTERM."""
    service = RecordedTurns(Path(recorded[0])) if recorded else OpenStreams()  # type: ignore[abstract]  # the others: UNIMPLEMENTED
    options = [("grpc.server.max_pending_requests", MANY), ("grpc.server.max_pending_requests_hard_limit", MANY)]
    server = grpc.aio.server(options=options)
    add_GenerationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving nothing on 127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
