"""Turns within their callers' quotas: each counts as a stream, and each character that is read or sampled."""

from __future__ import annotations

import contextlib
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from elman_server.domain.errors import UnauthenticatedError
from elman_server.domain.events import Chunk, Event, Started
from elman_server.grpc.access.door import caller
from elman_server.grpc.access.guarded_sessions import GuardedSessions, own_account
from elman_server.turns.service import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from elman_server.domain.events import CharacterDetail
    from elman_server.domain.requests import AppendRequest, GenerateRequest, ResumeRequest, ScoreRequest
    from elman_server.grpc.access.account import Account
    from elman_server.sessions.leases import Lease
    from elman_server.sessions.session import SessionInfo


class GuardedTurns(Turns):
    """Turns that count against their callers' quotas. A turn that has begun is never cut: it goes into debt."""

    async def generate(
        self, request: GenerateRequest, begun: Callable[[Lease], None] | None = None
    ) -> AsyncGenerator[tuple[Event, ...], None]:
        """Run one turn; see Turns. Raises OwnQuotaError, and UnauthenticatedError in a Chat that outlives a token."""
        async with self._admitted(is_stored=request.target.session is not None) as account:
            events = super().generate(request, begun)
            if account is not None:
                events = _metered(events, account)
            async with aclosing(events):
                async for happened in events:
                    yield happened

    async def resume(self, request: ResumeRequest) -> AsyncGenerator[tuple[Event, ...], None]:
        """Deliver a turn again, and continue it; see Turns."""
        async with self._admitted(is_stored=False) as account:
            events = super().resume(request)
            if account is not None:
                events = _metered(events, account)
            async with aclosing(events):
                async for happened in events:
                    yield happened

    async def append(self, request: AppendRequest) -> tuple[SessionInfo, Iterable[CharacterDetail]]:
        """Feed a text to a session; see Turns."""
        async with self._admitted(is_stored=True) as account:
            answer = await super().append(request)
            if account is not None:
                account.use_characters(len(request.text))
            return answer

    async def score(self, request: ScoreRequest) -> Iterable[CharacterDetail]:
        """Return how likely each character of a text is; see Turns."""
        async with self._admitted(is_stored=False) as account:
            answer = await super().score(request)
            if account is not None:
                account.use_characters(len(request.text))
            return answer

    @contextlib.asynccontextmanager
    async def _admitted(self, *, is_stored: bool) -> AsyncIterator[Account | None]:
        """Have a turn while entered."""
        found = caller.get()
        if found is None:
            yield None
            return
        if time.time() > found.expires:
            raise UnauthenticatedError("the token has expired")
        with found.account.stream():
            if is_stored and (account := own_account()) is not None:
                assert isinstance(self._sessions, GuardedSessions)
                await self._sessions.check_room(account, 0)
            yield found.account


async def _metered(
    events: AsyncGenerator[tuple[Event, ...], None], account: Account
) -> AsyncGenerator[tuple[Event, ...], None]:
    """Yield what happens in a turn, and note its characters."""
    async with aclosing(events):
        async for happened in events:
            for event in happened:
                if isinstance(event, Chunk):
                    account.use_characters(len(event.text))
                elif isinstance(event, Started):
                    account.use_characters(event.prompt_chars)
            yield happened
