"""Histories within their callers' quotas: what runs a model again counts like a turn."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from elman_server.domain.requests import ANONYMOUS, Creation
from elman_server.grpc.access.door import caller
from elman_server.history.service import History

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elman_server.history.replay import Replayed
    from elman_server.sessions.session import SessionInfo


class GuardedHistory(History):
    """Histories that count against their callers' quotas."""

    async def fork(
        self, session_id: str, *, position: int | None, count: int, creation: Creation = ANONYMOUS
    ) -> list[SessionInfo]:
        """Make sessions that equal this one at a position; see History."""
        _check_characters()
        return await super().fork(session_id, position=position, count=count, creation=creation)

    async def rewind(self, session_id: str, *, position: int, etag: str) -> SessionInfo:
        """Return a session to what it was at a position; see History."""
        _check_characters()
        return await super().rewind(session_id, position=position, etag=etag)

    async def replay(self, session_id: str) -> AsyncGenerator[Replayed, None]:
        """Run every turn of a session again; see History."""
        found = caller.get()
        assert found is not None
        with found.account.stream():
            async with aclosing(super().replay(session_id)) as turns:
                async for replayed in turns:
                    found.account.use_characters(replayed.turn.end - replayed.turn.start)
                    yield replayed


def _check_characters() -> None:
    """Refuse a call that may read text again; how much it reads is not known, and little."""
    if (found := caller.get()) is not None:
        found.account.check_characters()
