"""The floor: a `grpc.aio` server whose Generate answers twice and then does nothing. What a stream weighs without us.

`python -m benchmarks.floor_server`; the same port line, options and event loop as Elman's.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import uvloop

from elman.v1.generation_pb2 import Chunk, GenerateRequest, GenerateResponse, Started
from elman.v1.generation_pb2_grpc import GenerationServiceServicer, add_GenerationServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MANY = 100_000


class FloorService(GenerationServiceServicer):
    """Holds streams open."""

    async def Generate(  # noqa: N802  named by the contract
        self, _: GenerateRequest, __: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[GenerateResponse]:
        """Answer as Elman begins, then wait for the caller to leave."""
        yield GenerateResponse(started=Started())
        yield GenerateResponse(chunk=Chunk(text="A", position=1))
        await asyncio.Event().wait()


async def main() -> None:
    """Serve until SIGTERM."""
    options = [("grpc.server.max_pending_requests", MANY), ("grpc.server.max_pending_requests_hard_limit", MANY)]
    server = grpc.aio.server(options=options)
    add_GenerationServiceServicer_to_server(FloorService(), server)  # type: ignore[abstract]  # the others: UNIMPLEMENTED
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving nothing on 127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(main())
