"""Operations over a blocking channel."""

import atexit
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from queue import SimpleQueue
from threading import Lock
from typing import Any, Final, Generic, Protocol
from weakref import ReferenceType, WeakSet

import grpc

from elman_client._errors import DeadlineExceededError, ElmanError, InternalError, UnavailableError
from elman_client._shared.connection import Call, Connection
from elman_client._shared.leaving import Left
from elman_client._shared.operation import Operation, Value
from elman_client._shared.retrying import Attempts
from elman_client._shared.statuses import translated
from elman_client._sync import workers

_MAX_UNREAD: Final = 16  # answers of one stream that wait for their reader
_LEAVE_SECONDS: Final = 10.0  # for the end of a turn that its caller left
_CLOSE_SECONDS: Final = 5.0  # for all that are left when the client is closed
_EXIT_SECONDS: Final = 2.0  # or the program ends


class OpenTurn(Protocol):
    """A turn that may run, or a chat."""

    @property
    def is_left(self) -> bool:
        """Whether its caller has left it."""

    def close(self) -> None:
        """Leave it; once more if that was interrupted."""


class Transport:
    """Sends operations to one server. gRPC runs in workers alone."""

    def __init__(self, connection: Connection) -> None:
        target, credentials, options = connection.target, connection.credentials, connection.channel_options
        self._connection = connection
        self._channel = (
            grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
        )
        self._left: dict[str, workers.Result[Left | None]] = {}  # by session
        self._lock = Lock()
        self._open: dict[str, dict[OpenTurn, ReferenceType[object]]] = {}  # by session: what an owner reads
        _transports.add(self)

    @property
    def connection(self) -> Connection:
        """The client's settings."""
        return self._connection

    def run(self, operation: Operation[Value], timeout: float | None) -> Value:
        """Send one request and return its answer; again if the server was lost and that does no harm."""
        attempts = Attempts(self._connection, timeout, is_safe=operation.is_safe)
        self.settle(operation.session, attempts.time_left)
        if operation.turn_id:
            return self._run_turn(operation, attempts)
        return self._try(partial(self._once, operation), attempts)

    def _run_turn(self, operation: Operation[Value], attempts: Attempts) -> Value:
        """Send a turn of one answer as a stream, which can be left: an interrupted one is."""
        stream: Stream[Value] | None = None

        def once(timeout: float | None) -> Value:
            nonlocal stream
            stream = self.open(operation, timeout)
            if (value := stream.read()) is None:
                raise InternalError("the call ended without its answer; try again")
            stream.finish()
            return value

        try:
            return self._try(once, attempts)
        except ElmanError:
            raise
        except BaseException:
            self.leave(Left(operation.session, operation.turn_id, None), stream)
            raise

    def _try(self, once: Callable[[float | None], Value], attempts: Attempts) -> Value:
        while True:
            try:
                value = once(attempts.time_left)
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

        def send() -> bytes:
            method: Any = self._channel.unary_unary(operation.path)
            request: Any = operation.request
            if operation.more is not None:
                method, request = self._channel.stream_unary(operation.path), iter((request, *operation.more))
            with translated(call):
                reply: bytes = method(request, timeout=call.timeout, metadata=call.metadata)
            return reply

        answer = workers.Result(send).begin().get()
        call.span.end()
        return operation.parse(answer)

    def leave(self, left: Left, stream: "Stream[Any] | None") -> None:
        """End a turn that its caller has left, in the background: the session's next call waits for that."""
        if not self._connection.is_of_this_process:
            return  # the turn is the parent's
        if stream is not None:
            stream.wake()
        self._left[left.session] = result = workers.Result(lambda: self._end_turn(left, stream))
        result.begin()  # last: what an interrupt keeps from beginning, the next call begins

    def _end_turn(self, left: Left, stream: "Stream[Any] | None") -> Left | None:
        """Return the turn if the server cannot be reached: it is still to be ended."""
        if stream is not None:
            stream.prevent()
            if left.position is None:
                stream.stop()  # first: the server may not have begun the turn when Cancel comes
        try:
            self._cancel(left, Attempts(self._connection, _LEAVE_SECONDS, is_safe=True))
        except ElmanError:
            return left
        finally:
            if stream is not None:
                stream.cancel()  # after Cancel, which says how much of the turn is kept
        return None

    def _cancel(self, left: Left, attempts: Attempts) -> None:
        try:
            look = left.look(self._try(partial(self._once, left.cancel()), attempts))
            if look is not None and (cut := left.cut(self._try(partial(self._once, look), attempts))) is not None:
                self._try(partial(self._once, cut), attempts)
        except ElmanError as error:
            if isinstance(error, UnavailableError) or not error.reason:
                raise
            # Else it is the server's last word: the session was deleted, say, or another turn followed.
        self._left.pop(left.session, None)

    def settle(self, session: str, timeout: float) -> None:
        """Wait until the session's turn that was left is committed."""
        # A worker would close what was dropped, but maybe too late; and a close may have been interrupted.
        self._close_turns(session, lambda turn, owner: turn.is_left or owner() is None)
        if (result := self._left.get(session)) is None:
            return
        attempts = Attempts(self._connection, timeout, is_safe=True)
        if not result.begin().wait(attempts.time_left):
            raise DeadlineExceededError(f"{session}: the turn before this call did not end within its timeout")
        if (left := result.get()) is not None:
            self._cancel(left, attempts)

    def _close_turns(self, session: str, is_meant: Callable[[OpenTurn, ReferenceType[object]], bool]) -> None:
        with self._lock:
            found = [turn for turn, owner in self._open.get(session, {}).items() if is_meant(turn, owner)]
        for turn in found:
            turn.close()

    def open(self, operation: Operation[Value], timeout: float | None) -> "Stream[Value]":
        """Send one request and return the stream of its answers."""
        call = self._connection.call(operation, timeout)

        def begin() -> Any:
            method: Any = self._channel.unary_stream(operation.path)
            return method(operation.request, timeout=call.timeout, metadata=call.metadata)

        return Stream(self._connection, operation, _Reader(call, begin))

    def follow(self, operation: Operation[Value], timeout: float | None) -> Iterator[Value]:
        """Send one request and iterate over its answers; if the server was lost, again, without those that had come."""
        attempts, num_known = Attempts(self._connection, timeout, is_safe=operation.is_safe), 0
        following = operation
        self.settle(operation.session, attempts.time_left)
        while True:
            stream = self.open(operation, attempts.time_left)
            try:
                for index in count():
                    if (value := stream.read()) is None:
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
                time.sleep(delay)
            finally:
                stream.cancel()

    def gather(self, operation: Operation[Value], timeout: float | None) -> list[Value]:
        """Send one request and return all of its answers; if the server was lost, from the beginning."""
        attempts = Attempts(self._connection, timeout, is_safe=operation.is_safe)
        self.settle(operation.session, attempts.time_left)
        while True:
            stream, values = self.open(operation, attempts.time_left), list[Value]()
            try:
                while (value := stream.read()) is not None:
                    values.append(value)
            except ElmanError as error:
                delay = attempts.delay(error)
                if delay is None:
                    raise
                time.sleep(delay)
            else:
                attempts.succeeded()
                return values
            finally:
                stream.cancel()

    def talk(self, operation: Operation[Value], timeout: float) -> "Talk[Value]":
        """Return a stream both ways."""
        call = self._connection.call(operation, timeout)
        messages: SimpleQueue[bytes | None] = SimpleQueue()

        def begin() -> Any:
            method: Any = self._channel.stream_stream(operation.path)
            return method(iter(messages.get, None), timeout=call.timeout, metadata=call.metadata)

        return Talk(self._connection, operation, _Reader(call, begin), messages)

    def close(self) -> None:
        """Leave the turns that run, and close the channel; other calls are cancelled."""
        if self._connection.is_closed:
            return
        self.end_turns(_CLOSE_SECONDS)
        self._connection.is_closed = True
        if self._connection.is_of_this_process:
            workers.Result(self._channel.close).begin().wait()

    def close_with(self, owner: object, session: str, turn: OpenTurn) -> Callable[[], None]:
        """Close a turn when its owner ends, the client is closed or the program ends.

        What is returned takes that back.
        """

        def take_back() -> None:
            with self._lock:
                of_session = self._open.get(session, {})
                of_session.pop(turn, None)
                if not of_session:
                    self._open.pop(session, None)

        def close_and_take_back() -> None:
            turn.close()
            take_back()

        with self._lock:
            self._open.setdefault(session, {})[turn] = workers.run_at_end(owner, close_and_take_back)
        return take_back

    def end_turns(self, seconds: float) -> None:
        """Leave the turns that run, and wait until the server has committed them, at most for that time."""
        if not self._connection.is_of_this_process:
            return
        for session in list(self._open):
            self._close_turns(session, lambda *_: True)
        deadline = time.monotonic() + seconds
        for result in list(self._left.values()):
            result.begin().wait(max(0.0, deadline - time.monotonic()))


class Stream(Generic[Value]):
    """The answers of one call. It begins when it is first read."""

    def __init__(self, connection: Connection, operation: Operation[Value], reader: "_Reader") -> None:
        self._connection = connection
        self._operation = operation
        self._reader = reader
        self._has_begun = False
        self._is_over = False  # it was cancelled, or ends by itself

    def begin(self) -> None:
        """Send the call."""
        if not self._has_begun:
            self._has_begun = True
            workers.run(self._reader.run)

    def read(self) -> Value | None:
        """Return the next answer, ``None`` at the end."""
        self._connection.check_process()
        self.begin()
        answer = self._reader.answers.get()
        if isinstance(answer, bytes):
            self._reader.room.put(None)
            return self._operation.parse(answer)
        if answer is None:
            return None
        raise answer

    def wake(self) -> None:
        """Return the stream's end to a caller that waits in ``read``."""
        self._reader.answers.put(None)

    def prevent(self) -> None:
        """Keep a call that did not begin from beginning: what a worker sends after this is later at the server, too."""
        self._reader.prevent()

    def finish(self) -> None:
        """Let the call end by itself: the last answer has come, and its status is nothing to the caller."""
        self._is_over = True

    def cancel(self) -> None:
        """Stop the call. It does not wait for the server."""
        if self._is_over or self._reader.is_done:
            return
        self._is_over = True
        self._reader.is_left = True
        self.wake()
        workers.run(self._reader.cancel)

    def stop(self) -> None:
        """Stop the call, in a worker: what it sends after this comes after it at the server, too."""
        if not self._is_over:
            self._is_over = self._reader.is_left = True
            self._reader.cancel()


class Talk(Stream[Value]):
    """A call that sends and receives."""

    def __init__(
        self,
        connection: Connection,
        operation: Operation[Value],
        reader: "_Reader",
        messages: "SimpleQueue[bytes | None]",
    ) -> None:
        super().__init__(connection, operation, reader)
        self._messages = messages

    def send(self, message: bytes) -> None:
        """Send a message."""
        self.begin()
        self._messages.put(message)

    def end(self) -> None:
        """Say that no message will follow."""
        self.begin()
        self._messages.put(None)

    def cancel(self) -> None:
        """Stop the call. It does not wait for the server."""
        self._messages.put(None)  # gRPC's thread waits for the next message
        super().cancel()

    def stop(self) -> None:
        """Stop the call, in a worker: what it sends after this comes after it at the server, too."""
        self._messages.put(None)
        super().stop()


class _Reader:
    """What one call's worker does: it reads ahead of the caller by a few answers.

    Attributes:
        answers: What came, and at last ``None`` or an error.
        room: One entry for each answer that may be read.
        is_left: Nobody reads any more.
        is_done: The call has ended.
    """

    def __init__(self, call: Call, begin: Callable[[], Any]) -> None:
        self.answers: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self.room: SimpleQueue[None] = SimpleQueue()
        self.is_left = self.is_done = False
        self._call = call
        self._begin = begin
        self._stream: Any = None
        self._beginning = Lock()  # workers alone take it

    def run(self) -> None:
        """Read to the end, and no further than the caller leaves room for."""
        for _ in range(_MAX_UNREAD):
            self.room.put(None)
        try:
            with translated(self._call):
                self._read()
            self.answers.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller reads
            self.answers.put(_without_call(error))
        finally:
            self._stream = None
            self.is_done = True
            self._call.span.end("CANCELLED" if self.is_left else "OK")  # after an error it has its own end

    def prevent(self) -> None:
        """Keep a call that did not begin from beginning, in another worker."""
        with self._beginning:
            self.is_left = self.is_left or self._stream is None

    def cancel(self) -> None:
        """End the call, in another worker."""
        self.room.put(None)
        self.prevent()
        # The stream that a tracing interceptor made may be a plain generator: it ends at its next answer.
        if (cancel := getattr(self._stream, "cancel", None)) is not None:
            cancel()

    def _read(self) -> None:
        with self._beginning:
            if self.is_left:
                return
            self._stream = stream = self._begin()
        for encoded in stream:
            if self.is_left:
                return
            self.room.get()
            self.answers.put(encoded)


def _without_call(error: BaseException) -> BaseException:
    """Return ``error`` without the call that it came out of, which takes gRPC's locks when it ends, too."""
    if (call := error.__cause__) is not None:
        call.__traceback__ = None  # or they would hold one another, until a collection in any thread
        error.__cause__ = grpc.RpcError(str(call))
        error.__context__ = None
    return error.with_traceback(None)


_transports: WeakSet[Transport] = WeakSet()


@atexit.register
def _end_turns() -> None:
    """Let the sessions of a program that ends keep what it has read, where nobody closed the client."""
    for transport in list(_transports):
        transport.end_turns(_EXIT_SECONDS)
