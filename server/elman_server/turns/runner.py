"""Writers: which turns of this server write to sessions, and how these begin, end and let go."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.domain.errors import DrainingError, LeaseLostError, NotThereError, ServerError, StoreUnavailableError
from elman_server.domain.events import FinishReason
from elman_server.sessions.leases import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from contextlib import AbstractContextManager

    from elman_server.engine import JobStream
    from elman_server.sessions.leases import Lease
    from elman_server.sessions.records import Parameters
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import SessionInfo
    from elman_server.sessions.transitions import Durability
    from elman_server.turns.running_turn import RunningTurn

log = structlog.get_logger(__name__)

DEADLINE_MARGIN_SECONDS: Final = 0.1  # to commit and to say so before the call is cut off
RETRY_SECONDS: Final = 0.2
POLL_SECONDS: Final = 0.05  # between two looks at a turn that another server runs
_NO_DEADLINE: Final = nullcontext()


@dataclass(slots=True)
class Run:
    """A turn that has begun, or is about to: what it runs on.

    Attributes:
        keep: whether to commit what was delivered, should the turn be cut off.
    """

    lease: Lease
    turn: RunningTurn | None = None
    keep: bool = False


class Writers:
    """Lets turns write to sessions, one to each."""

    def __init__(self, sessions: Sessions, durability: Durability) -> None:
        self._sessions = sessions
        self._durability = durability
        self._leases: set[Lease] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False

    @asynccontextmanager
    async def lease(self, session_id: str | None, request_id: bytes) -> AsyncIterator[Run]:
        """Become the session's writer; in the end commit what is left to commit, and let go."""
        if self._is_draining:
            raise DrainingError
        run = Run(await self._sessions.lease(session_id, request_id))
        lease = run.lease
        self._leases.add(lease)
        lease.task = asyncio.current_task()
        try:
            yield run
        except ServerError as error:
            task = self._leave(run)
            has_news = run.turn is not None and run.keep and run.turn.has_news
            # Who hears that a turn failed, and left nothing, may send the next one at once.
            if task is not None and not has_news and not isinstance(error, StoreUnavailableError):
                await asyncio.shield(task)
            raise
        except BaseException:
            self._leave(run)
            raise
        else:
            self._leave(run)

    def _leave(self, run: Run) -> asyncio.Task[None] | None:
        """Let go of a session, or begin to: the caller may be gone, what is left to do is done without it."""
        turn = run.turn
        if turn is not None and isinstance(run.lease.end, LeaseLostError) and turn.settling is None:
            turn.leave()
        if turn is not None and turn.is_open:
            return self._spawn(self._give_up(run))
        self._release(run.lease)
        return None

    async def settle(self, run: Run, reason: FinishReason, stop_string: str = "") -> tuple[str, SessionInfo | None]:
        """Commit, whether or not the caller waits for it; return the state's digest and the session."""
        turn = run.turn
        assert turn is not None
        turn.settling = asyncio.create_task(turn.settle(reason, stop_string))
        state, info = await asyncio.shield(turn.settling)
        self._release(run.lease)  # before the caller hears of it and sends the next turn
        return state.digest(), info

    async def _give_up(self, run: Run) -> None:
        assert run.turn is not None
        try:
            await run.turn.give_up(keep=run.keep)
        finally:
            self._release(run.lease)

    def _release(self, lease: Lease) -> None:
        self._leases.discard(lease)
        self._sessions.leases.release(lease)

    async def open(self, run: Run, parameters: Parameters, etag: str = "", *, goes_on: bool = False) -> None:
        """Write a turn's lease into its session, and keep the turn durable from now on; see `Turn.open`."""
        assert run.turn is not None
        await run.turn.open(parameters, etag, goes_on=goes_on)
        if run.turn.is_open:
            run.lease.token = run.turn.token
            self._spawn(keep(run.turn, run.lease, self._durability))

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def cancel(self, session_id: str) -> SessionInfo:
        """End the turn that runs on a session, if any; return the session at rest."""
        if lease := self._sessions.leases.running(session_id):
            await lease.finish(FinishReason.CANCELLED)
        await self._cancel_elsewhere(session_id)  # also one that has taken the place of ours
        return await self._sessions.get(session_id)

    async def drain(self, grace: float) -> None:
        """Refuse new turns; let those that run finish for `grace` seconds, then end and commit them."""
        self._is_draining = True
        leases = list(self._leases)
        await wait_for(leases, grace)
        await asyncio.gather(*(lease.finish(FinishReason.SERVER_DRAINING) for lease in leases))

    async def _cancel_elsewhere(self, session_id: str) -> None:
        """Ask another server to end its turn and wait for that; end one whose server is gone."""
        head, _ = await self._sessions.load(session_id)
        if head.open is None:
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
                await self._sessions.at_rest(session_id)
            finally:
                self._sessions.leases.release(lease)


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


async def keep(turn: RunningTurn, lease: Lease, durability: Durability) -> None:
    """Commit a turn's progress until it is over; end it if it is no longer its server's, or the store stays away."""
    clock = asyncio.get_running_loop().time
    is_well = clock()
    while await _is_due(turn, durability.commit_seconds):
        try:
            if await turn.save():
                lease.interrupt(FinishReason.CANCELLED)
            is_well = clock()
        except (LeaseLostError, NotThereError) as error:
            lease.interrupt(error)
            return
        except ServerError as error:
            log.warning("turn_not_durable_yet", session=lease.session_id, durable=turn.durable, error=str(error))
            if clock() - is_well >= durability.patience_seconds:
                lease.interrupt(error)
                return
            await asyncio.sleep(RETRY_SECONDS)


async def _is_due(turn: RunningTurn, seconds: float) -> bool:
    """Wait until the turn has much to commit, or for so long; return False if it is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await turn.needs_commit.wait()
    turn.needs_commit.clear()
    return not turn.is_over
