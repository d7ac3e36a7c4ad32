"""Streams of events by themselves: what goes out, and when."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from elman_web.http import events


async def test_a_quiet_stream_is_kept_alive(monkeypatch):
    """While nothing comes, comments go out, so that no proxy takes the stream for dead."""
    monkeypatch.setattr(events, "_KEEP_ALIVE_SECONDS", 0.001)
    is_kept, sent = asyncio.Event(), []

    async def source() -> AsyncGenerator[bytes, None]:
        await is_kept.wait()
        yield b"second"

    async def send(message: Any) -> None:
        sent.append(message.get("body"))
        if message.get("body") == b": alive\n\n":
            is_kept.set()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async with asyncio.timeout(60):
        await events.EventStream(source(), b"first", 60)({}, receive, send)
    assert [body for body in sent[1:] if body != b": alive\n\n"] == [b"first", b"second", b""]
