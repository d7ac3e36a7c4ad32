"""Operations over an asyncio channel."""

# ruff: noqa: ASYNC109 - timeout is gRPC's deadline, which the server sees too

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from typing import Any, Generic

from grpc import aio

from elman_client._errors import CallCancelledError, ElmanError
from elman_client._shared.connection import CHANNEL_OPTIONS, Call, Connection
from elman_client._shared.operation import Operation, Value
from elman_client._shared.retrying import Attempts
from elman_client._shared.statuses import translated


class AsyncTransport:
    """Sends operations to one server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        """The client's settings."""
        return self._connection

    async def run(self, operation: Operation[Value], timeout: float | None) -> Value:
        """Send one request and return its answer; again if the server was lost and that does no harm."""
        attempts = Attempts(self._connection, timeout, is_safe=operation.is_safe)
        while True:
            try:
                value = await self._once(operation, attempts.time_left)
            except ElmanError as error:
                delay = attempts.delay(error)
                if delay is None:
                    raise
                await asyncio.sleep(delay)
            else:
                attempts.succeeded()
                return value

    async def _once(self, operation: Operation[Value], timeout: float | None) -> Value:
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.unary_unary(operation.path)
        with _awaiting(call):
            reply = await method(operation.request, timeout=call.timeout, metadata=call.metadata)
        return operation.parse(reply)

    def open(self, operation: Operation[Value], timeout: float | None) -> "AsyncStream[Value]":
        """Send one request and return the stream of its answers."""
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.unary_stream(operation.path)
        answers = method(operation.request, timeout=call.timeout, metadata=call.metadata)
        return AsyncStream(operation, call, answers)

    async def follow(self, operation: Operation[Value], timeout: float | None) -> AsyncGenerator[Value, None]:
        """Send one request and iterate over its answers; if the server was lost, again, without those that had come."""
        attempts, num_known = Attempts(self._connection, timeout, is_safe=operation.is_safe), 0
        while True:
            stream = self.open(operation, attempts.time_left)
            try:
                for index in count():
                    if (value := await stream.read()) is None:
                        return
                    if index == num_known:  # what is told again is no progress
                        num_known += 1
                        attempts.succeeded()
                        yield value
            except ElmanError as error:
                delay = attempts.delay(error)
                if delay is None:
                    raise
                await asyncio.sleep(delay)
            finally:
                stream.cancel()

    def talk(self, operation: Operation[Value], timeout: float | None) -> "AsyncTalk[Value]":
        """Return a stream both ways."""
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.stream_stream(operation.path)
        return AsyncTalk(operation, call, method(timeout=call.timeout, metadata=call.metadata))

    async def aclose(self) -> None:
        """Close the channel; running calls are cancelled."""
        self._connection.is_closed = True
        await self._channel.close()

    @cached_property
    def _channel(self) -> aio.Channel:
        # Made at the first call: a channel belongs to the event loop that runs then.
        target, credentials = self._connection.target, self._connection.credentials
        if credentials is None:
            return aio.insecure_channel(target, CHANNEL_OPTIONS)
        return aio.secure_channel(target, credentials, CHANNEL_OPTIONS)


class AsyncStream(Generic[Value]):
    """The answers of one call."""

    def __init__(self, operation: Operation[Value], call: Call, answers: Any) -> None:
        self._operation = operation
        self._call = call
        self._answers = answers

    async def read(self) -> Value | None:
        """Return the next answer, ``None`` at the end."""
        with _awaiting(self._call):
            encoded = await self._answers.read()
        return None if encoded is aio.EOF else self._operation.parse(encoded)

    def cancel(self) -> None:
        """Stop the call. It does not wait for the server."""
        self._answers.cancel()


class AsyncTalk(AsyncStream[Value]):
    """A call that sends and receives."""

    async def send(self, message: bytes) -> None:
        """Send a message."""
        with _awaiting(self._call):
            await self._answers.write(message)

    async def end(self) -> None:
        """Say that no message will follow."""
        with _awaiting(self._call):
            await self._answers.done_writing()


@contextmanager
def _awaiting(call: Call) -> Iterator[None]:
    """Raise our own errors; tell a cancelled call from a cancelled task, which gRPC does not."""
    try:
        with translated(call):
            yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallCancelledError("the call was cancelled under way", request_id=call.request_id) from error
