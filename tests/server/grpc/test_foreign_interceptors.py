"""Interceptors of others around ours: streams end, fail and are cancelled as without them."""

import grpc
import pytest
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorServer
from sentry_sdk.integrations.grpc.aio.server import ServerInterceptor

from elman.v1.generation_pb2 import GenerateRequest
from elman.v1.session_pb2 import GetSessionRequest
from elman_server.domain.errors import EtagMismatchError

GENERATE = GenerateRequest(model="models/tiny", prompt="the prompt")


def _with_opentelemetry(monkeypatch) -> None:
    monkeypatch.setattr(grpc.aio, "server", grpc.aio.server)  # restored at the end
    GrpcAioInstrumentorServer().instrument()


def _with_sentry(monkeypatch) -> None:
    plain = grpc.aio.server

    def server(interceptors, options) -> grpc.aio.Server:
        return plain(interceptors=[ServerInterceptor(), *interceptors], options=options)

    monkeypatch.setattr(grpc.aio, "server", server)


@pytest.fixture(params=[_with_opentelemetry, _with_sentry])
async def wrapped(request, monkeypatch, serve):
    """A server that another's interceptor wraps."""
    request.param(monkeypatch)
    async with serve() as served:
        yield served
    if request.param is _with_opentelemetry:
        GrpcAioInstrumentorServer().uninstrument()


async def test_calls_and_streams_arrive(wrapped):
    """Every message comes, and the status with its trailers."""
    await wrapped.session.GetSession(GetSessionRequest(name="sessions/abcd"))
    call = wrapped.generation.Generate(GENERATE, metadata=(("x-request-id", "mine"),))
    events = [event async for event in call]

    assert [event.ListFields()[0][0].name for event in events] == ["started", "chunk", "finished"]
    assert (await call.trailing_metadata())["x-request-id"] == "mine"


async def test_errors_keep_their_details(wrapped):
    """A stream that fails has our code and details."""
    wrapped.turns.error = EtagMismatchError("sessions/abcd", "2a")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in wrapped.generation.Generate(GENERATE):
            pass

    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert "grpc-status-details-bin" in caught.value.trailing_metadata()


async def test_a_stream_that_is_left_is_closed(wrapped):
    """A caller that leaves ends the turn at once."""
    wrapped.turns.is_endless = True
    call = wrapped.generation.Generate(GENERATE)
    await call.read()
    call.cancel()
    await wrapped.turns.closed.wait()
