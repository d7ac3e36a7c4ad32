"""The blocking client under the asyncio client's grammar, so that both run the same cases."""

import asyncio
from collections.abc import Iterator
from typing import Any, Self

from elman_client import Chat, Client, Generation, Session

_END = object()
_NOT_AWAITED = {"session", "generate", "resume", "chat", "replay", "list_sessions", "events"}  # in the asyncio client


class Blocking:
    """A blocking object that reads like its asyncio twin; its calls run in threads."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, "close" if name == "aclose" else name)
        if not callable(attribute):
            return attribute
        if name in _NOT_AWAITED:
            return lambda *args, **options: _adapted(attribute(*args, **options))

        async def call(*args: Any, **options: Any) -> Any:
            return _adapted(await asyncio.to_thread(attribute, *args, **options))

        return call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await asyncio.to_thread(next, self.inner, _END)
        if item is _END:
            raise StopAsyncIteration
        return _adapted(item)

    async def __aenter__(self) -> Self:
        self.inner.__enter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.inner.__exit__(*error)


def _adapted(value: Any) -> Any:
    if isinstance(value, tuple) and value and isinstance(value[0], Session):
        return tuple(map(Blocking, value))
    return Blocking(value) if isinstance(value, Chat | Client | Session | Generation | Iterator) else value
