"""Operations over a blocking channel."""

from typing import Any, Generic

import grpc

from elman_client._shared.connection import CHANNEL_OPTIONS, Call, Connection
from elman_client._shared.operation import Operation, Value
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

    def run(self, operation: Operation[Value], timeout: float | None) -> Value:
        """Send one request and return its answer."""
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
