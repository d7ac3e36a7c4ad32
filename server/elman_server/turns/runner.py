"""The runner: lets turns run, one on a session at a time; begins, commits and ends them."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.domain.errors import (
    DrainingError,
    LeaseLostError,
    NotThereError,
    QuotaError,
    ServerError,
    StoreUnavailableError,
)
from elman_server.domain.events import FinishReason
from elman_server.process.observe.counters import COUNTERS
from elman_server.process.tasks import background
from elman_server.sessions.leases import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from contextlib import AbstractContextManager

    from elman_server.engine import JobStream
    from elman_server.sessions.leases import Lease
    from elman_server.sessions.records import Head, Parameters
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import SessionInfo
    from elman_server.sessions.transitions import Durability
    from elman_server.turns.running_turn import RunningTurn

log = structlog.get_logger(__name__)

DEADLINE_MARGIN_SECONDS: Final = 0.1  # to commit and to report it before the call is cut off
RETRY_SECONDS: Final = 0.2
RETRY_AFTER_SECONDS: Final = 1.0  # for a caller past the limit
POLL_SECONDS: Final = 0.05  # between two looks at a turn that another server runs
_NO_DEADLINE: Final = nullcontext()


@dataclass(slots=True)
class Run:
    """A turn that has begun, or is about to, and what it runs on.

    Attributes:
        keep: whether to commit what was delivered, should the turn be cut off.
        renewal: starts to make the turn durable on the way, once it has run for a while.
    """

    lease: Lease
    turn: RunningTurn | None = None
    keep: bool = False
    renewal: asyncio.TimerHandle | None = None


class TurnRunner:
    """Lets turns run, one on a session at a time."""

    def __init__(self, sessions: Sessions, durability: Durability, max_streams: int) -> None:
        self._sessions = sessions
        self._max_streams = max_streams
        self._durability = durability
        self._leases: set[Lease] = set()
        self._is_draining = False

    @asynccontextmanager
    async def lease(self, session_id: str | None, request_id: bytes) -> AsyncIterator[Run]:
        """Become the session's writer; at the end commit what is left to commit, and release the session.

        Raises:
            QuotaError: as many turns run as may.
        """
        self._check_draining()
        if len(self._leases) >= self._max_streams:
            raise QuotaError("streams", self._max_streams, RETRY_AFTER_SECONDS)
        run = Run(await self._sessions.lease(session_id, request_id))
        lease = run.lease
        self._leases.add(lease)
        COUNTERS.num_streams = len(self._leases)
        lease.task = asyncio.current_task()
        try:
            self._check_draining()  # it may have begun while another turn finished
            yield run
        except ServerError as error:
            task = self._leave(run)
            has_news = run.turn is not None and run.keep and run.turn.has_news
            # A caller that learns that a turn failed, and left nothing, may send the next one at once.
            if task is not None and not has_news and not isinstance(error, StoreUnavailableError):
                await asyncio.shield(task)
            raise
        except BaseException:
            self._leave(run)
            raise
        else:
            self._leave(run)

    def _check_draining(self) -> None:
        if self._is_draining:
            raise DrainingError

    def _leave(self, run: Run) -> asyncio.Task[None] | None:
        """Release a session, or begin to: the caller may have left, so the rest is done without it."""
        turn = run.turn
        run.lease.is_left = True
        if turn is None or not turn.has_begun:
            self._release(run)
            return None
        is_taken_over = isinstance(run.lease.end, LeaseLostError) and turn.settling is None
        return background(
            self._end(run, turn.give_way() if is_taken_over else turn.give_up(keep=run.keep)), "end a turn"
        )

    async def _end(self, run: Run, end: Coroutine[object, object, None]) -> None:
        try:
            await end
        finally:
            self._release(run)

    def _release(self, run: Run) -> None:
        if run.renewal is not None:
            run.renewal.cancel()
        self._leases.discard(run.lease)
        COUNTERS.num_streams = len(self._leases)
        self._sessions.leases.release(run.lease)

    async def begin(
        self, run: Run, parameters: Parameters, etag: str = "", *, is_continuation: bool = False, is_taken: bool = False
    ) -> None:
        """Begin a turn, and make it durable from now on; see `RunningTurn.begin`.

        With `is_taken` its place was another run's: it is written whatever the store.
        """
        turn, lease = run.turn, run.lease
        assert turn is not None
        is_seen = is_taken or self._sessions.is_shared
        await turn.begin(parameters, etag, is_continuation=is_continuation, is_seen=is_seen)
        if not turn.has_begun:
            return
        lease.token, lease.is_generating = turn.token, True

        def renew() -> None:
            turn.on_due = _nothing
            if run.renewal is not None:
                run.renewal.cancel()
            if not turn.is_ending:
                background(keep_durable(turn, lease, self._durability), "keep a turn durable")

        turn.on_due = renew
        run.renewal = asyncio.get_running_loop().call_later(self._durability.commit_seconds, renew)

    async def settle(self, run: Run, reason: FinishReason, stop_string: str = "") -> Head | None:
        """Commit, whether or not the caller waits for it; return the session after it, None without one."""
        turn = run.turn
        assert turn is not None
        if turn.settling is None and turn.can_settle_at_once:
            head = await turn.settle(reason, stop_string)
        else:
            head = await asyncio.shield(self.settling(run, reason, stop_string))
        run.lease.is_generating = False
        self._release(run)  # before the caller learns of it and sends the next turn
        return head

    def settling(self, run: Run, reason: FinishReason, stop_string: str = "") -> asyncio.Task[Head | None]:
        """Begin to commit, whatever becomes of the caller."""
        turn = run.turn
        assert turn is not None
        if turn.settling is None:
            turn.settling = asyncio.create_task(turn.settle(reason, stop_string))
        return turn.settling

    async def cancel(self, session_id: str, request_id: bytes = b"") -> SessionInfo:
        """End the turn that runs on a session, if any; `request_id`: only the turn that has it."""
        lease = self._sessions.leases.running(session_id)
        if lease is not None and request_id in {b"", lease.request_id}:
            await lease.finish(FinishReason.CANCELLED)
        await self._cancel_elsewhere(session_id, request_id)  # also one that has taken the place of ours
        return await self._sessions.get(session_id)

    async def drain(self, grace: float) -> None:
        """Refuse new turns; let those that run finish for `grace` seconds, then end and commit them."""
        self._is_draining = True
        leases = list(self._leases)
        await wait_for(leases, grace)
        await asyncio.gather(*(lease.finish(FinishReason.SERVER_DRAINING) for lease in leases))

    async def _cancel_elsewhere(self, session_id: str, request_id: bytes) -> None:
        """Ask another server to end its turn and wait for that; end one whose server is down."""
        head, _ = await self._sessions.load(session_id)
        if head.open is None or request_id not in {b"", head.open.parameters.request_id}:
            return
        token = head.open.token
        if self._sessions.is_leased(head):
            await self._sessions.ask_to_end(session_id, token)
        while self._sessions.is_leased(head, token):
            await asyncio.sleep(POLL_SECONDS)
            head, _ = await self._sessions.load(session_id)
        if head.open is not None and not self._sessions.leases.running(session_id):  # or a new one has begun here
            lease = self._sessions.leases.take(session_id)
            try:
                await self._sessions.idle(session_id)
            finally:
                self._sessions.leases.release(lease)


async def keep_durable(turn: RunningTurn, lease: Lease, durability: Durability) -> None:
    """Commit a turn's progress until it ends; end it if it is not this server's any more, or the store stays away."""
    clock = asyncio.get_running_loop().time
    last_success = clock()
    while not turn.is_ending:
        turn.needs_commit.clear()
        try:
            if await turn.save():
                lease.interrupt(FinishReason.CANCELLED)
            last_success = clock()
        except (LeaseLostError, NotThereError) as error:
            lease.interrupt(error)
            return
        except ServerError as error:
            log.warning("turn_not_durable_yet", session=lease.session_id, durable=turn.durable, error=str(error))
            if clock() - last_success >= durability.patience_seconds:
                lease.interrupt(error)
                return
            await asyncio.sleep(RETRY_SECONDS)
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(durability.commit_seconds):
                await turn.needs_commit.wait()


def watched(stream: JobStream, lease: Lease, time_left: float | None) -> AbstractContextManager[None]:
    """Let Cancel, drain and deletion end a job; while entered the deadline, too."""
    lease.watch(stream.interrupt)
    return _NO_DEADLINE if time_left is None else _deadline(stream, time_left)


@contextmanager
def _deadline(stream: JobStream, time_left: float) -> Iterator[None]:
    delay = max(0.0, time_left - min(DEADLINE_MARGIN_SECONDS, time_left / 2))
    timer = asyncio.get_running_loop().call_later(delay, stream.interrupt, FinishReason.DEADLINE)
    try:
        yield
    finally:
        timer.cancel()


def _nothing() -> None:
    """Do nothing."""
