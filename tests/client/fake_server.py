"""The fake servicer on a real port of the loopback, in a thread of its own."""

import asyncio
import threading
from typing import Self

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from elman.v1 import generation_pb2_grpc, model_pb2_grpc, session_pb2_grpc
from tests.client.fake_servicer import Servicer

_OPTIONS = (  # pings as often as a client likes, as elman servers have it
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
)


class FakeServer:
    """The server in a thread of its own, on a free port of the loopback."""

    def __init__(self, *models: str) -> None:
        self.servicer = Servicer(models or ("shakespeare", "tiny"))
        self.target = ""
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = aio.server(options=_OPTIONS)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self.servicer, server)
        session_pb2_grpc.add_SessionServiceServicer_to_server(self.servicer, server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self.servicer, server)
        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        await servicer.set("sleeping", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop(grace=None)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
