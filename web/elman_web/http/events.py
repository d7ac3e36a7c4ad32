"""Server-sent events: text that streams, keeps the connection alive, and gives up on a reader that does not read."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from elman_client import ElmanError
from elman_web.http.errors import failure

DONE: Final = b"data: [DONE]\n\n"
_CALLER_LEFT: Final = 499
_KEEP_ALIVE: Final = b": alive\n\n"
_KEEP_ALIVE_SECONDS: Final = 10.0
_LOG: Final = logging.getLogger("elman_web")
_Result = TypeVar("_Result")


def event(data: Any, *, event_id: str = "", name: str = "") -> bytes:
    """Return one event; `event_id` is what a reader sends as Last-Event-ID to continue after it."""
    lines = [f"event: {name}"] if name else []
    if event_id:
        lines.append(f"id: {event_id}")
    # All in ASCII: many clients split lines at U+0085 and U+2028 too.
    lines.append(f"data: {json.dumps(data, separators=(',', ':'))}")
    return ("\n".join(lines) + "\n\n").encode()


class EventStream(Response):
    """A response of events as they come. The first is awaited before, so that an error has its HTTP status.

    The source is closed as soon as the reader leaves, or does not read for `write_seconds`.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes, None], first: bytes, write_seconds: float) -> None:
        super().__init__(
            headers={"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"},
        )
        del self.headers["content-length"]
        self._source = source
        self._first = first
        self._write_seconds = write_seconds

    @classmethod
    async def begin(cls, request: Request, source: AsyncGenerator[bytes, None]) -> "EventStream":
        """Wait for the first event; raises what the source raises before it."""
        try:
            first = await while_connected(request, _next(source))
        except BaseException:
            await source.aclose()
            raise
        return cls(source, first, request.app.state.settings.write_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the source ends or the reader leaves."""
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def write(body: bytes, *, more: bool = True) -> None:
            async with asyncio.timeout(self._write_seconds):
                await send({"type": "http.response.body", "body": body, "more_body": more})

        async with aclosing(self._source):
            await _until(_disconnect(receive), self._send_all(write))

    async def _send_all(self, write: Callable[..., Awaitable[None]]) -> None:
        try:
            await write(self._first)
            coming: asyncio.Task[bytes] | None = None
            try:
                while True:
                    coming = coming or asyncio.ensure_future(_next(self._source))
                    done, _ = await asyncio.wait({coming}, timeout=_KEEP_ALIVE_SECONDS)
                    if not done:
                        await write(_KEEP_ALIVE)
                        continue
                    body, coming = coming.result(), None
                    if not body:
                        break
                    await write(body)
            finally:
                await _end(coming)
        except TimeoutError:
            _LOG.info("a reader read nothing for %s s: its stream ends here", self._write_seconds)
            return
        except ElmanError as error:
            await write(event({"error": failure(error)[1].model_dump()}))
        await write(b"", more=False)


async def while_connected(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `work` returns; cancel it when the caller leaves.

    Raises:
        HTTPException: The caller left; nobody reads this.
    """
    result = await _until(_disconnect(request.receive), work)
    if result is None:
        raise HTTPException(_CALLER_LEFT, "the caller left")
    return result


async def _next(source: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(source, b"")


async def _until(signal: Coroutine[Any, Any, None], work: Coroutine[Any, Any, _Result]) -> _Result | None:
    """Run `work` until it ends, or `signal` does; then it is cancelled and None is returned."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(signal)
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await _end(working)
        await _end(waiting)


async def _end(task: "asyncio.Future[Any] | None") -> None:
    if task is not None and not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
