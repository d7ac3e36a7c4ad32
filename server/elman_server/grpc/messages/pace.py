"""Pace: a request that comes in slowly, and an answer that its reader does not take, hold little and not for ever."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import grpc

from elman_server.domain.errors import OverloadedError, QuotaError, StalledReaderError

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

MAX_INCOMING: Final = 128  # requests that have begun to come in; each may hold a whole message
INCOMING_SECONDS: Final = 0.1  # that each of them has at least, if more wait
RETRY_AFTER_SECONDS: Final = 1.0  # for a caller past a limit
LOOKS: Final = 12  # at a stream within the time that its reader may take


class Places:
    """Limits how many calls of a kind run at once; one object for all of them, to be entered by each."""

    def __init__(self, subject: str, most: int) -> None:
        self._subject = subject
        self._most = most
        self._num_taken = 0

    def __enter__(self) -> None:
        if self._num_taken >= self._most:
            raise QuotaError(self._subject, self._most, RETRY_AFTER_SECONDS)
        self._num_taken += 1

    def __exit__(self, *_: object) -> None:
        self._num_taken -= 1


class Inbox:
    """Receives requests. gRPC keeps the part of a message that has come, and callers may send no more than a part.

    When there are many such, a new one takes the place of an old one: of the connection that has the most.
    """

    def __init__(self, most: int = MAX_INCOMING, seconds: float = INCOMING_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        # Of each connection: since when a request comes in, the oldest first; and those that wait for a place.
        self._incoming: dict[str, dict[asyncio.Task[Any], float]] = {}
        self._waiting: OrderedDict[str, list[tuple[asyncio.Task[Any], asyncio.Future[None]]]] = OrderedDict()
        self._evicted: set[asyncio.Task[Any]] = set()
        self._num_incoming = 0
        self._timer: asyncio.TimerHandle | None = None

    async def receive(self, context: Context) -> Any:
        """Return a call's next message, as bytes, or gRPC's EOF.

        Raises:
            OverloadedError: others waited, and this one did not come.
        """
        task, peer = asyncio.current_task(), context.peer()
        assert task is not None
        try:
            if self._num_incoming < self._most:
                self._begin(peer, task)
            else:
                await self._place(peer, task)
            return await context.read()
        except asyncio.CancelledError:
            if task not in self._evicted:  # the caller left
                raise
            task.uncancel()
            raise OverloadedError("more requests come in than the server can hold", RETRY_AFTER_SECONDS) from None
        finally:
            self._evicted.discard(task)
            self._remove(peer, task)
            self._admit()

    async def _place(self, peer: str, task: asyncio.Task[Any]) -> None:
        """Wait for a place."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if peer not in self._waiting:
            self._waiting[peer] = []
            self._waiting.move_to_end(peer, last=False)
        self._waiting[peer].append((task, waiter))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._evict)
        await waiter

    def _admit(self) -> None:
        """Give a place to one that waits: connections take turns, a new one first, and of each the youngest is next."""
        while self._waiting and self._num_incoming < self._most:
            peer, waiters = next(iter(self._waiting.items()))
            task, waiter = waiters.pop()
            if waiters:
                self._waiting.move_to_end(peer)
            else:
                del self._waiting[peer]
            if not waiter.done():  # else the caller has left
                self._begin(peer, task)
                waiter.set_result(None)

    def _evict(self) -> None:
        """End old ones, as long as others wait."""
        self._timer = None
        loop = asyncio.get_running_loop()
        until = loop.time() - self._seconds
        while self._waiting:  # so all places are taken
            peer, tasks = max(self._incoming.items(), key=_most_and_oldest)
            task, since = next(iter(tasks.items()))
            if since > until:
                self._timer = loop.call_later(self._seconds, self._evict)
                return
            self._remove(peer, task)
            self._evicted.add(task)
            task.cancel()
            self._admit()

    def _begin(self, peer: str, task: asyncio.Task[Any]) -> None:
        self._incoming.setdefault(peer, {})[task] = asyncio.get_running_loop().time()
        self._num_incoming += 1

    def _remove(self, peer: str, task: asyncio.Task[Any]) -> None:
        tasks = self._incoming.get(peer, {})
        if tasks.pop(task, None) is not None:
            self._num_incoming -= 1
            if not tasks:
                del self._incoming[peer]


def _most_and_oldest(of_peer: tuple[str, dict[asyncio.Task[Any], float]]) -> tuple[int, float]:
    tasks = of_peer[1]
    return len(tasks), -next(iter(tasks.values()))


class Answer:
    """The answer of one call.

    gRPC sends the headers with the first message. Until that is sent it would send them with a status, too, and then
    neither. So the first message is sent in a task of its own, which the end of a turn does not cancel.
    """

    __slots__ = ("_first", "context")

    def __init__(self, context: Context) -> None:
        self.context = context
        self._first: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Give a message to gRPC; return when it has taken it."""
        if self._first is None:
            self._first = asyncio.ensure_future(self.context.write(data))
            self._first.add_done_callback(_take_note)
            await asyncio.shield(self._first)
        else:
            await self.context.write(data)

    async def headers_sent(self) -> None:
        """Return when a status can be sent: its reader may have to take the first message before."""
        if self._first is not None:
            await asyncio.wait({self._first})


class Outbox:
    """Sends answers, and ends the streams whose readers take none for a time.

    Args:
        seconds: that time, about.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sending: dict[asyncio.Task[Any], float] = {}  # since when
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, answer: Answer, data: bytes) -> None:
        """Send a message; return when gRPC has taken it: it holds a few for a reader who is behind."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._sending[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds / LOOKS, self._look)
        try:
            await answer.write(data)
        except grpc.aio.InternalError:  # gRPC cannot send: the caller has left, and the call is about to be cancelled
            raise asyncio.CancelledError from None
        finally:
            self._sending.pop(task, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() - self._seconds
        for task in [task for task, since in self._sending.items() if since <= until]:
            del self._sending[task]
            task.cancel(StalledReaderError(self._seconds))
        self._timer = loop.call_later(self._seconds / LOOKS, self._look) if self._sending else None


def _take_note(written: asyncio.Future[None]) -> None:
    """Look at an error that nobody waits for: the caller has left."""
    if not written.cancelled():
        written.exception()
