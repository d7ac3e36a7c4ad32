"""Operations over a blocking channel."""

import time
from collections.abc import Iterator
from itertools import count
from queue import SimpleQueue
from typing import Any, Generic

import grpc

from elman_client._errors import ElmanError
from elman_client._shared.connection import CHANNEL_OPTIONS, Call, Connection
from elman_client._shared.operation import Operation, Value
from elman_client._shared.retrying import Attempts
from elman_client._shared.statuses import translated


class Transport:
    """Sends operations to one server."""

    def __init__(self, connection: Connection) -> None:
        target, credentials = connection.target, connection.credentials
        self._connection = connection
        self._channel = (
            grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(target, CHANNEL_OPTIONS)
        )

    @property
    def connection(self) -> Connection:
        """The client's settings."""
        return self._connection

    def run(self, operation: Operation[Value], timeout: float | None) -> Value:
        """Send one request and return its answer; again if the server was lost and that does no harm."""
        attempts = Attempts(self._connection, timeout, is_safe=operation.is_safe)
        while True:
            try:
                value = self._once(operation, attempts.time_left)
            except ElmanError as error:
                delay = attempts.delay(error)
                if delay is None:
                    raise
                time.sleep(delay)
            else:
                attempts.succeeded()
                return value

    def _once(self, operation: Operation[Value], timeout: float | None) -> Value:
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.unary_unary(operation.path)
        with translated(call):
            reply = method(operation.request, timeout=call.timeout, metadata=call.metadata)
        return operation.parse(reply)

    def open(self, operation: Operation[Value], timeout: float | None) -> "Stream[Value]":
        """Send one request and return the stream of its answers."""
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.unary_stream(operation.path)
        answers = method(operation.request, timeout=call.timeout, metadata=call.metadata)
        return Stream(operation, call, answers)

    def follow(self, operation: Operation[Value], timeout: float | None) -> Iterator[Value]:
        """Send one request and iterate over its answers; if the server was lost, again, without those that had come."""
        attempts, num_known = Attempts(self._connection, timeout, is_safe=operation.is_safe), 0
        while True:
            stream = self.open(operation, attempts.time_left)
            try:
                for index in count():
                    if (value := stream.read()) is None:
                        return
                    if index == num_known:  # what is told again is no progress
                        num_known += 1
                        attempts.succeeded()
                        yield value
            except ElmanError as error:
                delay = attempts.delay(error)
                if delay is None:
                    raise
                time.sleep(delay)
            finally:
                stream.cancel()

    def talk(self, operation: Operation[Value], timeout: float | None) -> "Talk[Value]":
        """Return a stream both ways."""
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.stream_stream(operation.path)
        messages: SimpleQueue[bytes | None] = SimpleQueue()
        answers = method(iter(messages.get, None), timeout=call.timeout, metadata=call.metadata)
        return Talk(operation, call, answers, messages)

    def close(self) -> None:
        """Close the channel; running calls are cancelled."""
        self._connection.is_closed = True
        self._channel.close()


class Stream(Generic[Value]):
    """The answers of one call."""

    def __init__(self, operation: Operation[Value], call: Call, answers: Any) -> None:
        self._operation = operation
        self._call = call
        self._answers = answers

    def read(self) -> Value | None:
        """Return the next answer, ``None`` at the end."""
        with translated(self._call):
            encoded = next(self._answers, None)
        return None if encoded is None else self._operation.parse(encoded)

    def cancel(self) -> None:
        """Stop the call. It does not wait for the server."""
        self._answers.cancel()


class Talk(Stream[Value]):
    """A call that sends and receives."""

    def __init__(
        self, operation: Operation[Value], call: Call, answers: Any, messages: "SimpleQueue[bytes | None]"
    ) -> None:
        super().__init__(operation, call, answers)
        self._messages = messages

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._messages.put(message)

    def end(self) -> None:
        """Say that no message will follow."""
        self._messages.put(None)

    def cancel(self) -> None:
        """Stop the call. It does not wait for the server."""
        self.end()  # gRPC's thread waits for the next message
        super().cancel()
