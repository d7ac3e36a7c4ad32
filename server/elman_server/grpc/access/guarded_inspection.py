"""Inspections within their callers' quotas: each counts as a stream, and each character that is read or shown."""

from __future__ import annotations

import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING

from elman_server.grpc.access.door import caller
from elman_server.history.inspection import Inspection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from elman_server.domain.inspection import (
        ExplainedStep,
        ExplainRequest,
        FindRequest,
        FoundUnits,
        StateChunk,
        WatchRequest,
    )
    from elman_server.grpc.access.account import Account


class GuardedInspection(Inspection):
    """Inspections that count against their callers' quotas."""

    async def watch(self, request: WatchRequest) -> AsyncGenerator[StateChunk, None]:
        """Yield the values of units; see Inspection. Raises OwnQuotaError as well."""
        with _admitted() as account:
            async with aclosing(super().watch(request)) as chunks:
                async for chunk in chunks:
                    if account is not None:
                        account.use_characters(len(chunk.text))
                    yield chunk

    async def explain(self, request: ExplainRequest) -> ExplainedStep:
        """Return the terms of one step; see Inspection."""
        with _admitted() as account:
            step = await super().explain(request)
            if account is not None:
                account.use_characters(max(1, len(request.source.text)))
            return step

    async def find(self, request: FindRequest) -> FoundUnits:
        """Return the units that follow a labelling best; see Inspection."""
        with _admitted() as account:
            found = await super().find(request)
            if account is not None:
                account.use_characters(found.num_characters)
            return found


@contextlib.contextmanager
def _admitted() -> Iterator[Account | None]:
    """Have an inspection while entered."""
    found = caller.get()
    if found is None:
        yield None
        return
    with found.account.stream():
        yield found.account
