"""The lease: the right to write to a session, held by the one turn that runs on it.

Within a server it is `Lease`, one a session, found in `Leases`. Among servers of one store it is `records.Open` in the
session's head: its token is the writer's as long as it stands there, and every commit checks it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import SessionBusyError
from elman_server.process.light_event import LightEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from elman_server.domain.events import FinishReason

LEFT_SECONDS: Final = 5.0  # the next turn waits for the commit of one that was left, at most
CANCEL_SECONDS: Final = 1.0  # after which a turn whose reader takes nothing is ended with its call


@dataclass(slots=True, eq=False)
class Lease:
    """The right to write to a session, held by the one turn that runs on it.

    Attributes:
        request_id: of that turn; empty: none.
        task: the task that runs the turn, for a turn whose reader does not take what it is delivered.
        token: of the turn's place in the session's head; empty until it stands there.
        is_found: whether the turn has found its session: until then it may expire.
        is_generating: whether the turn has begun and is not committed.
        is_left: whether its call has ended: only the commit is still to come.
        end: the reason or the error with which the turn was ended; None: it was not.
        done: set when the turn is committed or given up.
    """

    session_id: str | None
    request_id: bytes = b""
    token: bytes = b""
    is_found: bool = False
    is_generating: bool = False
    is_left: bool = False
    task: asyncio.Task[object] | None = None
    end: FinishReason | Exception | None = None
    done: LightEvent = field(default_factory=LightEvent)
    _on_end: Callable[[FinishReason | Exception], None] | None = None

    def interrupt(self, end: FinishReason | Exception) -> None:
        """End the turn with a reason or an error, now or as soon as it has something that can be ended."""
        self.end = end
        if self._on_end is not None:
            self._on_end(end)

    async def finish(self, end: FinishReason | Exception) -> None:
        """End the turn and wait until it is settled; a reader that takes nothing does not hold it up for long."""
        self.interrupt(end)
        await wait_for([self], CANCEL_SECONDS)
        if not self.done.is_set() and self.task is not None:
            self.task.cancel(end)
        await self.done.wait()

    def watch(self, on_end: Callable[[FinishReason | Exception], None]) -> None:
        """Say what ends the turn; it is called at once if the end came before."""
        self._on_end = on_end
        if self.end is not None:
            on_end(self.end)


class Leases:
    """The leases of one server by session; those of turns without a session are in none of the answers."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def take(self, session_id: str | None, request_id: bytes = b"") -> Lease:
        """Become the one writer of a session, or of none; raises SessionBusyError."""
        lease = Lease(session_id, request_id)
        if session_id is not None and self._leases.setdefault(session_id, lease) is not lease:
            raise SessionBusyError(f"sessions/{session_id}")
        return lease

    def release(self, lease: Lease) -> None:
        """Stop being the writer; again does nothing."""
        if lease.session_id is not None and self._leases.get(lease.session_id) is lease:
            del self._leases[lease.session_id]
        lease.done.set()

    def running(self, session_id: str) -> Lease | None:
        """Return the lease of the turn that runs on a session."""
        return self._leases.get(session_id)

    def is_running(self, session_id: str) -> bool:
        """Whether a turn runs on a session."""
        lease = self._leases.get(session_id)
        return lease is not None and lease.is_found

    def is_generating(self, session_id: str) -> bool:
        """Whether a turn has begun on a session and is not committed."""
        lease = self._leases.get(session_id)
        return lease is not None and lease.is_generating

    def found(self, session_id: str) -> None:
        """Note that a session was found; the turn that is about to run on it keeps it from expiring."""
        if lease := self._leases.get(session_id):
            lease.is_found = True


async def wait_for(leases: Iterable[Lease], seconds: float) -> None:
    """Wait at most `seconds` until turns are settled."""
    waits = [asyncio.ensure_future(lease.done.wait()) for lease in leases]
    if waits:
        _, late = await asyncio.wait(waits, timeout=seconds)
        for wait in late:
            wait.cancel()
