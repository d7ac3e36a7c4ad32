"""Sessions within their owners' quotas."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import CorruptRecordError
from elman_server.domain.owner import owner
from elman_server.domain.requests import ANONYMOUS, Creation
from elman_server.grpc.access.door import caller
from elman_server.sessions import records
from elman_server.sessions.pages import DEFAULT_PAGE
from elman_server.sessions.service import Sessions
from elman_server.sessions.transitions import CHECKPOINT_CHARS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elman_server.grpc.access.account import Account
    from elman_server.sessions.repository import Prepared
    from elman_server.sessions.session import Expiration, SessionInfo

COUNT_SECONDS: Final = 30.0  # between two counts of an owner's sessions,
FULL_SECONDS: Final = 2.0  # or, where a limit is reached, less: some may have expired
COST: Final = 50  # a count takes no more than this part of the time


class GuardedSessions(Sessions):
    """Sessions that count against their owners' quotas."""

    async def add(
        self,
        session_id: str,
        head: records.Head,
        expiration: Expiration,
        segments: Sequence[Prepared] = (),
        *,
        creation: Creation = ANONYMOUS,
    ) -> SessionInfo:
        """Store a new session; see Sessions. Raises OwnQuotaError as well."""
        account = own_account()
        if account is None:
            return await super().add(session_id, head, expiration, segments, creation=creation)
        if (made := await self.made(session_id, creation)) is not None:
            return made
        await self.check_room(account, 1)
        account.num_sessions += 1  # before it waits: others may come meanwhile
        try:
            info = await super().add(session_id, head, expiration, segments, creation=creation)
        except BaseException:
            account.num_sessions -= 1
            raise
        account.num_bytes += stored_bytes(head)
        return info

    async def delete(self, session_id: str, *, etag: str) -> None:
        """Delete a session; see Sessions."""
        await super().delete(session_id, etag=etag)
        if (account := own_account()) is not None:
            account.num_sessions -= 1

    async def check_room(self, account: Account, num_sessions: int) -> None:
        """Refuse new sessions, or text in old ones, past an account's limits; raises OwnQuotaError.

        What it has is counted now and then: sessions expire, and other servers of the store make some.
        """
        quotas = account.quotas
        if quotas.sessions is None and quotas.stored_bytes is None:
            return
        if time.monotonic() - account.counted_at > (FULL_SECONDS if account.is_full(num_sessions) else COUNT_SECONDS):
            await self._count(account)
        account.check_room(num_sessions)

    async def _count(self, account: Account) -> None:
        begin = time.monotonic()
        account.counted_at = begin  # other calls do not count at the same time
        num_sessions = num_bytes = 0
        after = ""
        while rows := await self._page(owner.get(), after, DEFAULT_PAGE):
            for key, stored in rows:
                num_sessions += stored.expires > self._clock.expiry()
                try:
                    num_bytes += stored_bytes(self.head(key, stored))
                except CorruptRecordError:
                    continue
            after = rows[-1][0]
        account.num_sessions, account.num_bytes = num_sessions, num_bytes
        account.counted_at = time.monotonic() + COST * (time.monotonic() - begin)


def own_account() -> Account | None:
    """Return the account of the call's owner; None: nobody counts, as for an admin in another's sessions."""
    found = caller.get()
    return found.account if found is not None and found.principal.owner == owner.get() else None


def stored_bytes(head: records.Head) -> int:
    """Return the bytes of a session in the store, about, from its head alone."""
    state = head.state.num_bytes
    checkpoints = head.checkpoint // CHECKPOINT_CHARS * state
    return head.num_bytes + head.num_segments * records.OBJECT_BYTES + head.position + checkpoints
