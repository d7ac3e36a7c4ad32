from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
import structlog

from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.model_pb2_grpc import ModelServiceStub
from elman.v1.session_pb2_grpc import SessionServiceStub
from elman_server.grpc.server import GrpcServer
from elman_server.models.registry import ModelInfo, Models
from elman_server.process import logs
from elman_server.process.logs import set_up_logs
from elman_server.process.settings import Settings
from tests.server.grpc.fakes import MODEL, FakeHistory, FakeSessions, FakeTurns
from tests.server_process import PATIENCE

if TYPE_CHECKING:
    from elman.v1.generation_pb2_grpc import GenerationServiceAsyncStub
    from elman.v1.model_pb2_grpc import ModelServiceAsyncStub
    from elman.v1.session_pb2_grpc import SessionServiceAsyncStub


@dataclass
class Served:
    """A running server over a fake domain, and a channel to it."""

    server: GrpcServer
    sessions: FakeSessions
    turns: FakeTurns
    history: FakeHistory
    port: int
    channel: grpc.aio.Channel

    @property
    def generation(self) -> GenerationServiceAsyncStub:
        """A stub of GenerationService."""
        return GenerationServiceStub(self.channel)

    @property
    def models(self) -> ModelServiceAsyncStub:
        """A stub of ModelService."""
        return ModelServiceStub(self.channel)

    @property
    def session(self) -> SessionServiceAsyncStub:
        """A stub of SessionService."""
        return SessionServiceStub(self.channel)


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@contextlib.asynccontextmanager
async def _serve(models: Sequence[ModelInfo] = (MODEL,), **settings: Any) -> AsyncIterator[Served]:
    sessions, turns, history = FakeSessions(), FakeTurns(), FakeHistory()
    domain = cast("Any", (sessions, turns, Models(models), history))
    server = GrpcServer(Settings(**{"listen": "127.0.0.1:0", **settings}), *domain)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Served(server, sessions, turns, history, port, channel)
    finally:
        await server.stop(0)


@pytest.fixture
def serve() -> Serve:
    """Open a server with settings of the test's own."""
    return _serve


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server with default settings."""
    async with _serve() as served:
        yield served


@pytest.fixture
def log() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Capture the log; call it for the lines so far, parsed."""
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers = []
    with tempfile.TemporaryFile() as file:
        writer = set_up_logs("json", "debug", file.fileno())

        def lines() -> list[dict[str, Any]]:
            writer.drain(PATIENCE)
            size = os.fstat(file.fileno()).st_size
            return [json.loads(line) for line in os.pread(file.fileno(), size, 0).splitlines()]

        yield lines
        structlog.reset_defaults()
        logs._fast.writer = None
        writer.drain(PATIENCE)
    logging.root.handlers, logging.root.level = handlers, level
