"""Operations over an asyncio channel."""

# ruff: noqa: ASYNC109 - timeout is gRPC's deadline, which the server sees too

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Generic, Protocol
from weakref import WeakSet

from grpc import aio

from elman_client._errors import (
    CallCancelledError,
    DeadlineExceededError,
    ElmanError,
    FailedPreconditionError,
    UnavailableError,
)
from elman_client._shared.connection import Call, Connection
from elman_client._shared.leaving import Left
from elman_client._shared.operation import Operation, Value
from elman_client._shared.retrying import Attempts
from elman_client._shared.statuses import translated

_LEAVE_SECONDS: Final = 10.0  # for the end of a turn that its caller left
_CLOSE_SECONDS: Final = 5.0  # for all that are left when the client is closed


class Closeable(Protocol):
    """A turn that may run."""

    async def aclose(self) -> None:
        """Leave it."""


@dataclass(frozen=True)
class _Left:
    """A turn that its caller left; to end it was tried once ``is_tried`` is set."""

    turn: Left
    is_tried: asyncio.Event = field(default_factory=asyncio.Event)


class AsyncTransport:
    """Sends operations to one server.

    Attributes:
        open_turns: What is closed with the client: generations and chats.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: aio.Channel | None = None
        self._left: dict[str, _Left] = {}  # by session
        self._tasks: set[asyncio.Task[None]] = set()
        self.open_turns: WeakSet[Closeable] = WeakSet()

    @property
    def connection(self) -> Connection:
        """The client's settings."""
        return self._connection

    async def run(self, operation: Operation[Value], timeout: float | None) -> Value:
        """Send one request and return its answer; again if the server was lost and that does no harm."""
        attempts = Attempts(self._connection, timeout, is_safe=operation.is_safe)
        await self.settle(operation.session, attempts.time_left)
        try:
            return await self._try(operation, attempts)
        except ElmanError:
            raise
        except BaseException:
            if operation.turn_id:  # the server may be at it
                self.leave(Left(operation.session, operation.turn_id, None), None)
            raise

    async def _try(self, operation: Operation[Value], attempts: Attempts) -> Value:
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
        request: Any = operation.request
        if operation.more is not None:
            method, request = self._channel.stream_unary(operation.path), iter((request, *operation.more))
        with _awaiting(call):
            reply = await method(request, timeout=call.timeout, metadata=call.metadata)
        call.span.end()
        return operation.parse(reply)

    def leave(self, turn: Left, stream: "AsyncStream[Any] | None") -> None:
        """End a turn that its caller has left, in the background: the session's next call waits for that."""
        loop = self._loop
        if not self._connection.is_of_this_process or loop is None or loop.is_closed():
            return  # the turn is another process's, or the server saw the connection end
        if stream is not None and (stream.is_awaited or turn.position is None):
            # Who waits for its next answer waits no more; and the server may not have begun the turn when Cancel comes.
            stream.cancel()
        self._left[turn.session] = left = _Left(turn)
        if _running_loop() is loop:
            self._begin_end(left, stream)
        else:  # an object's end, which may come in any thread
            loop.call_soon_threadsafe(self._begin_end, left, stream)

    def _begin_end(self, left: _Left, stream: "AsyncStream[Any] | None") -> None:
        task = asyncio.get_running_loop().create_task(self._end_turn(left, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_turn(self, left: _Left, stream: "AsyncStream[Any] | None") -> None:
        try:
            await self._cancel(left.turn, Attempts(self._connection, _LEAVE_SECONDS, is_safe=True))
        except ElmanError:
            pass  # the server cannot be reached: the session's next call tries again
        finally:
            if stream is not None:
                stream.cancel()  # after Cancel, which says how much of it is kept
            left.is_tried.set()

    async def _cancel(self, left: Left, attempts: Attempts) -> None:
        try:
            look = left.look(await self._try(left.cancel(), attempts))
            if look is not None and (cut := left.cut(await self._try(look, attempts))) is not None:
                await self._try(cut, attempts)
        except ElmanError as error:
            if isinstance(error, UnavailableError) or not error.reason:
                raise
            # Else it is the server's last word: the session was deleted, say, or another turn followed.
        self._left.pop(left.session, None)

    async def settle(self, session: str, timeout: float) -> None:
        """Wait until the session's turn that was left is committed."""
        if (left := self._left.get(session)) is None:
            return
        attempts = Attempts(self._connection, timeout, is_safe=True)
        try:
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                await left.is_tried.wait()
        except TimeoutError:
            message = f"{session}: the turn before this call did not end within its timeout"
            raise DeadlineExceededError(message) from None
        if self._left.get(session) is left:
            await self._cancel(left.turn, attempts)

    def open(self, operation: Operation[Value], timeout: float | None) -> "AsyncStream[Value]":
        """Send one request and return the stream of its answers."""
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.unary_stream(operation.path)
        answers = method(operation.request, timeout=call.timeout, metadata=call.metadata)
        return AsyncStream(operation, call, answers)

    async def follow(self, operation: Operation[Value], timeout: float | None) -> AsyncGenerator[Value, None]:
        """Send one request and iterate over its answers; if the server was lost, again, without those that had come."""
        attempts, num_known = Attempts(self._connection, timeout, is_safe=operation.is_safe), 0
        following = operation
        await self.settle(operation.session, attempts.time_left)
        while True:
            stream = self.open(operation, attempts.time_left)
            try:
                for index in count():
                    if (value := await stream.read()) is None:
                        return
                    if index >= num_known:  # what is sent again is no progress
                        if operation.after is None:
                            num_known += 1
                        else:
                            following = operation.after(value)
                        attempts.succeeded()
                        yield value
            except ElmanError as error:
                operation = following
                delay = attempts.delay(error)
                if delay is None:
                    raise
                await asyncio.sleep(delay)
            finally:
                stream.cancel()

    async def gather(self, operation: Operation[Value], timeout: float | None) -> list[Value]:
        """Send one request and return all of its answers; if the server was lost, from the beginning."""
        attempts = Attempts(self._connection, timeout, is_safe=operation.is_safe)
        await self.settle(operation.session, attempts.time_left)
        while True:
            stream, values = self.open(operation, attempts.time_left), list[Value]()
            try:
                while (value := await stream.read()) is not None:
                    values.append(value)
            except ElmanError as error:
                delay = attempts.delay(error)
                if delay is None:
                    raise
                await asyncio.sleep(delay)
            else:
                attempts.succeeded()
                return values
            finally:
                stream.cancel()

    def talk(self, operation: Operation[Value], timeout: float) -> "AsyncTalk[Value]":
        """Return a stream both ways."""
        call = self._connection.call(operation, timeout)
        method: Any = self._channel.stream_stream(operation.path)
        messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        answers = method(_until_none(messages), timeout=call.timeout, metadata=call.metadata)
        return AsyncTalk(operation, call, answers, messages)

    async def aclose(self) -> None:
        """Leave the turns that run, and close the channel; other calls are cancelled."""
        if self._connection.is_closed:
            return
        for each in list(self.open_turns):
            await each.aclose()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        self._connection.is_closed = True
        if self._opened is not None:
            await self._channel.close()

    @property
    def _channel(self) -> aio.Channel:
        # Made at the first call: a channel belongs to the event loop that runs then.
        loop = asyncio.get_running_loop()
        if self._opened is None:
            self._loop, self._opened = loop, _channel(self._connection)
        if loop is not self._loop:
            raise FailedPreconditionError("this client was used in another event loop: make a client for each loop")
        return self._opened


class AsyncStream(Generic[Value]):
    """The answers of one call.

    Attributes:
        is_awaited: Somebody waits for the next one.
    """

    def __init__(self, operation: Operation[Value], call: Call, answers: Any) -> None:
        self._operation = operation
        self._call = call
        self._answers = answers
        self.is_awaited = False

    async def read(self) -> Value | None:
        """Return the next answer, ``None`` at the end."""
        self.is_awaited = True
        try:
            with _awaiting(self._call):
                encoded = await self._answers.read()
        finally:
            self.is_awaited = False
        if encoded is aio.EOF:
            self._call.span.end()
            return None
        return self._operation.parse(encoded)

    def cancel(self) -> None:
        """Stop the call. It does not wait for the server."""
        self._answers.cancel()
        self._call.span.end("CANCELLED")


class AsyncTalk(AsyncStream[Value]):
    """A call that sends and receives."""

    def __init__(
        self, operation: Operation[Value], call: Call, answers: Any, messages: asyncio.Queue[bytes | None]
    ) -> None:
        super().__init__(operation, call, answers)
        self._messages = messages  # not write(), which waits for ever on a call that was cancelled before it was sent

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._messages.put_nowait(message)

    def end(self) -> None:
        """Say that no message will follow."""
        self._messages.put_nowait(None)


async def _until_none(messages: asyncio.Queue[bytes | None]) -> AsyncGenerator[bytes, None]:
    while (message := await messages.get()) is not None:
        yield message


def _channel(connection: Connection) -> aio.Channel:
    target, credentials, options = connection.target, connection.credentials, connection.channel_options
    if credentials is None:
        return aio.insecure_channel(target, options)
    return aio.secure_channel(target, credentials, options)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@contextmanager
def _awaiting(call: Call) -> Iterator[None]:
    """Raise our own errors; distinguish a cancelled call from a cancelled task, which gRPC does not."""
    try:
        with translated(call):
            yield
    except asyncio.CancelledError as error:
        call.span.end("CANCELLED")
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallCancelledError("the call was cancelled while it ran", request_id=call.request_id) from error
