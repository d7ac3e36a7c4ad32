"""What every call passes through: its request id, its one log line, and its error as a status."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from elman_server.domain.errors import (
    DrainingError,
    InvalidFieldError,
    OverloadedError,
    TurnCancelledError,
    UnauthenticatedError,
)
from elman_server.domain.events import FinishReason
from elman_server.grpc.messages.pace import Answer, Inbox, Outbox
from elman_server.grpc.status import to_failure
from elman_server.process.logs import log_call
from elman_server.process.observe.call import Call, begin_call, this_call
from elman_server.process.observe.counters import COUNTERS
from elman_server.process.observe.tracing import TRACEPARENT, TRACING, trace_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable

    from grpc import HandlerCallDetails, RpcMethodHandler

    from elman_server.grpc.access.door import Door

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = RpcMethodHandler[Any, Any]

REQUEST_ID: Final = "x-request-id"
DETAILS: Final = "grpc-status-details-bin"
_VALID_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_AUTHORIZATION: Final = "authorization"
_ACTS_FOR: Final = "x-elman-principal"
_QUIET: Final = "/grpc."  # health probes come every few seconds


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler, once, but reflection's, which takes many requests and is not ours.

    Args:
        stalled_seconds: after which a stream ends whose reader takes nothing.
        door: lets callers in; None: everybody may do everything.
    """

    def __init__(self, stalled_seconds: float, door: Door | None = None) -> None:
        self._door = door
        self._handlers: dict[str, Handler] = {}  # of the methods that exist
        self._inbox, self._outbox = Inbox(), Outbox(stalled_seconds)

    async def intercept_service(
        self, continuation: Callable[[HandlerCallDetails], Awaitable[Handler | None]], handler_call_details: Any
    ) -> Handler | None:
        """Return the handler, wrapped; None if there is no such method."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = self._wrapped(handler, method)
        return self._handlers[method]

    def _wrapped(self, handler: Handler, method: str) -> Handler:
        """Return a handler that itself receives and sends bytes: it knows who is slow, and what is broken."""
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(handler, method))
        return grpc.stream_stream_rpc_method_handler(self._single(handler, method))

    def _single(self, handler: Handler, method: str) -> Any:
        async def call(_: object, context: Context) -> AsyncGenerator[Any, None]:
            """Read the request and write the responses; yields none.

            Interceptors of OpenTelemetry, Sentry and others expect a generator. One that yielded would not be where a
            cancellation arrives, could not say why the call was ended, and would be closed later.
            """
            data: Any = b""
            failure = None
            try:
                data = await self._inbox.receive(context)  # a caller that leaves here has asked nothing: no log line
            except OverloadedError as error:
                failure = error
            async with _answered(method, context) as answer:
                if failure is not None:
                    raise failure
                await self._enter(method, context)
                if data is grpc.aio.EOF:
                    raise InvalidFieldError("request", "is missing; send one message")
                await self._answer(handler, _parsed(handler, data), answer)
            if False:
                yield

        return call

    def _streaming(self, handler: Handler, method: str) -> Any:
        async def call(_: object, context: Context) -> AsyncGenerator[Any, None]:
            async with _answered(method, context) as answer:
                await self._enter(method, context)
                await self._answer(handler, _each_parsed(handler, context), answer)
            if False:
                yield

        return call

    async def _enter(self, method: str, context: Context) -> None:
        """Let a caller in, or raise why not; health is open, and reflection a setting."""
        if self._door is not None and not method.startswith(_QUIET):
            await _enter(self._door, method, context)

    async def _answer(self, handler: Handler, request: Any, answer: Answer) -> None:
        context = answer.context
        if not handler.response_streaming:
            behaviour: Any = handler.unary_unary or handler.stream_unary
            await self._outbox.send(answer, _serialized(await behaviour(request, context)))
            return
        behaviour = handler.unary_stream or handler.stream_stream
        # Closed here and now, however the call ends: the garbage collector would leave the generator running.
        async with contextlib.aclosing(behaviour(request, context)) as responses:
            del request  # not kept while the stream runs
            async for response in responses:
                data = _serialized(response)
                del response  # not kept while its reader takes it
                await self._outbox.send(answer, data)


@contextlib.asynccontextmanager
async def _answered(method: str, context: Context) -> AsyncIterator[Answer]:
    """Run one call: gives it its request id, turns an error into a status, writes the log line.

    The id goes out with the status, in the trailers. As headers it would be a message of its own, for which the first
    character would wait.
    """
    call, parent = _call(method, context)
    begin_call(call)
    context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
    failure = unexpected = None
    answer = Answer(context)
    with TRACING.call(call, parent):
        try:
            yield answer
        except grpc.aio.AbortError:  # a status that the handler has sent itself
            call.code = context.code().name
            raise
        except asyncio.CancelledError as error:
            cause = _cause(error)
            if cause is None:  # the caller left, or its deadline passed
                call.code = "CANCELLED" if context.time_remaining() != 0 else "DEADLINE_EXCEEDED"
                raise
            failure = to_failure(cause, call.request_id)
        except Exception as error:  # noqa: BLE001  the last resort of every call; the log has the traceback
            failure = to_failure(error, call.request_id)
            unexpected = None if failure.is_expected else error
        finally:
            if failure is not None:
                call.code, call.reason = failure.code.name, failure.reason
            COUNTERS.ended(call)
            usual = "debug" if method.startswith(_QUIET) else "info"
            log_call("error" if unexpected else usual, call, unexpected)
    if failure is not None:
        trailers = ((DETAILS, failure.details), (REQUEST_ID, call.request_id))
        await answer.headers_sent()
        await context.abort(failure.code, failure.message, trailers)


async def _enter(door: Door, method: str, context: Context) -> None:
    """Let a caller in, or raise why not."""
    metadata = context.invocation_metadata() or ()
    entered = await door.enter(
        method,
        authorization=_header(metadata, _AUTHORIZATION),
        certificate=_certificate(context),
        acts_for=_header(metadata, _ACTS_FOR),
    )
    this_call().principal = entered.principal.name


def _header(metadata: Iterable[tuple[str, str | bytes]], name: str) -> str | None:
    """Return the value of a header; None: it is not there."""
    values = [value for key, value in metadata if key == name]
    if len(values) > 1:
        raise UnauthenticatedError(f"the header {name} is there {len(values)} times")
    return str(values[0]) if values else None


def _certificate(context: Context) -> str | None:
    """Return the name in the caller's certificate: its one URI (as of SPIFFE), else its subject."""
    found = context.auth_context()
    names = list(found.get("peer_uri", ()))
    if len(names) != 1:
        names = list(found.get("x509_subject", ()))
    return names[0].decode("utf-8", "replace") if names else None


def _cause(error: asyncio.CancelledError) -> Exception | None:
    """Return why the server itself ended a call, whose reader takes nothing: `Lease.finish` passes it on."""
    end = error.args[0] if error.args else None
    if isinstance(end, FinishReason):
        return DrainingError() if end is FinishReason.SERVER_DRAINING else TurnCancelledError()
    return end if isinstance(end, Exception) else None


def _parsed(handler: Handler, data: bytes) -> Any:
    try:
        return handler.request_deserializer(data) if handler.request_deserializer else data
    except DecodeError:
        raise InvalidFieldError("request", "is not this method's message; strings must be UTF-8") from None


async def _each_parsed(handler: Handler, context: Context) -> AsyncIterator[Any]:
    while (data := await context.read()) is not grpc.aio.EOF:
        yield _parsed(handler, data)


def _serialized(response: Any) -> bytes:
    """Return a response as bytes, which some handlers have made piece by piece."""
    data: bytes = response if isinstance(response, bytes) else response.SerializeToString()
    return data


def _call(method: str, context: Context) -> tuple[Call, str]:
    """Return what is known of a call from its headers, and its `traceparent`."""
    request_id = parent = ""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and _VALID_ID.fullmatch(value):
            request_id = value
        elif key == TRACEPARENT and isinstance(value, str):
            parent = value
    call = Call(method, request_id or str(uuid.uuid4()), context.peer())
    call.trace_id = trace_id(parent) if parent else ""
    return call, parent
