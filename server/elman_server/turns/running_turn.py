"""A turn under way: what of it was delivered, and how that becomes durable."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

import structlog
from msgspec.structs import replace

from elman_server.domain.errors import (
    LeaseLostError,
    NotThereError,
    ServerError,
    SessionBusyError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from elman_server.domain.events import FinishReason
from elman_server.engine.job import Job
from elman_server.engine.prefill import read_patiently
from elman_server.process.light_event import LightEvent
from elman_server.sessions import records
from elman_server.sessions.transitions import Change, advanced, closed, dropped
from elman_server.turns.progress import Progress

if TYPE_CHECKING:
    from elman_server.domain.state import SessionState
    from elman_server.engine import AnyEngine
    from elman_server.sessions.records import Head, OpenTurn, Outcome, Parameters
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import SessionInfo
    from elman_server.sessions.transitions import Durability

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 1.0


class RunningTurn:
    """One turn on a session, or without one for a job that keeps nothing.

    Args:
        head: the session as the turn found it; None: nothing is committed.
        state: what the turn begins with.

    Attributes:
        token: of its place in the head.
        start, prompt_end: the positions before and after the prompt.
        durable: the position up to where the turn is durable; before that of the session, at first.
        is_open: whether its lease stands in the head.
        is_over: whether it has ended, or is about to.
        needs_commit: set when so much was delivered that it has to become durable, or when the turn is over.
    """

    def __init__(
        self,
        engine: AnyEngine,
        sessions: Sessions,
        session_id: str | None,
        *,
        head: Head | None,
        state: SessionState,
        durability: Durability,
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._session_id = session_id
        self._head = head
        self._durability = durability
        self.token = secrets.token_bytes(8)
        self._commits = asyncio.Lock()
        self._rest = (head.position if head else 0, state)
        self.start = self.prompt_end = self.durable = self._rest[0]
        self.progress = Progress(state, [])
        self._num_past = 0  # characters of a turn without a session that nobody has to keep
        self._saving: tuple[int, SessionState] | None = None  # what is being made durable: characters, state after them
        self.is_open = self.is_over = False
        self.needs_commit = LightEvent()
        self.settling: asyncio.Task[tuple[SessionState, SessionInfo | None]] | None = None

    @property
    def position(self) -> int:
        """The position after what was delivered."""
        return self.durable + self._num_past + len(self.progress.prompt) + len(self.progress.delivered)

    @property
    def num_sampled(self) -> int:
        """How many characters the turn has sampled and delivered, before and since it was durable."""
        return max(0, self.position - self.prompt_end)

    @property
    def has_news(self) -> bool:
        """Whether a character was delivered that the session, as callers see it, has not."""
        return self.position > max(self._rest[0], self.prompt_end)

    def plan(self, prompt: list[int]) -> None:
        """Say what is read first."""
        self.progress.prompt = prompt
        self.prompt_end = self.start + len(prompt)

    def go_on(self, start: int, prompt_end: int, opened: OpenTurn | None) -> None:
        """Take the place of a run of this turn that was left; `opened`: it is not committed."""
        self.start, self.prompt_end = start, prompt_end
        if opened is not None:
            self.durable = opened.position
            self.progress = Progress(opened.state or self._rest[1], records.unpack(opened.prompt_bytes, opened.prompt))

    def deliver(self, ids: list[int]) -> None:
        """Note that characters are given to the transport."""
        self.progress.deliver(ids)
        if self._session_id is None and (told := self.progress.told()):
            self._num_past += len(self.progress.prompt) + told[0]
            self.progress.advance(*told)
        if len(self.progress.delivered) >= self._durability.commit_chars:
            self.needs_commit.set()

    # Commits

    async def open(self, parameters: Parameters, etag: str = "", *, goes_on: bool = False) -> None:
        """Write the lease and the turn into the head.

        Args:
            parameters: what the turn was asked for.
            etag: must still hold, unless it is empty.
            goes_on: whether the turn was committed as far as it came.

        Raises:
            SessionBusyError: the session is not as the turn found it.
        """
        if self._session_id is None:
            return
        found = self._head
        assert found is not None

        def change(head: Head) -> Change | None:
            if head.open is not None and head.open.token == self.token:
                return None
            if head.created != found.created or head.last_token != found.last_token:
                raise SessionBusyError(f"sessions/{self._session_id}")
            if _reached(head) != _reached(found):
                raise SessionBusyError(f"sessions/{self._session_id}")
            return Change(replace(head, open=self._opened(head, parameters, goes_on=goes_on)))

        self._head = await self._sessions.change(self._session_id, change, etag=etag)
        self.is_open = True

    def _opened(self, head: Head, parameters: Parameters, *, goes_on: bool) -> OpenTurn:
        expires = self._sessions.now() + self._durability.lease_seconds
        writer = self._sessions.writer
        if head.open is not None:  # another server's, or one of ours that could not commit
            return replace(head.open, token=self.token, writer=writer, lease_expires=expires, is_cancelled=False)
        prompt_bytes, prompt = records.pack(self.progress.prompt)
        return records.OpenTurn(
            token=self.token,
            writer=writer,
            lease_expires=expires,
            parameters=parameters,
            start=self.start,
            prompt_end=self.prompt_end,
            position=self.durable,
            num_segments=head.num_segments,
            checkpoint=head.checkpoint,
            prompt_bytes=prompt_bytes,
            prompt=prompt,
            goes_on=goes_on,
        )

    async def save(self) -> bool:
        """Make durable what can be, and renew the lease; return whether somebody wants the turn to end.

        Raises:
            LeaseLostError, NotThereError: the turn is not this one's any more.
        """
        async with self._commits:
            if not self.is_open or self.is_over:
                return False
            assert self._session_id is not None
            expires = self._sessions.now() + self._durability.lease_seconds

            def change(head: Head) -> Change | None:
                opened = self._checked(head)
                told = self.progress.told()
                if told is None or not told[0]:
                    return Change(replace(head, open=replace(opened, lease_expires=expires)))
                self._saving = told
                prompt, sampled = self.progress.prompt, self.progress.delivered[: told[0]]
                return advanced(head, prompt, sampled, told[1], expires)

            head = await self._sessions.change(self._session_id, change)
            assert head.open is not None
            self._advance(head.open)
            return head.open.is_cancelled

    def _advance(self, opened: OpenTurn) -> None:
        """Take note of what has become durable; of a commit, too, whose answer was lost."""
        if self._saving is not None and opened.position > self.durable:
            self.progress.advance(*self._saving)
            self.durable = opened.position
        self._saving = None

    async def settle(
        self, reason: FinishReason = FinishReason.CANCELLED, stop_string: str = ""
    ) -> tuple[SessionState, SessionInfo | None]:
        """Commit exactly what was delivered; return the state after it and the session.

        The engine may be ahead of the reader, or gone: what lies between its last told state and the last delivered
        character is read again, which gives the same bits.
        """
        self._end()
        async with self._commits:
            state, unread = self.progress.nearest()
            if unread:
                state = await read_patiently(self._engine, Job(state, self.position - len(unread), unread))
            if self._session_id is None:
                return state, None
            outcome = records.Outcome(reason, stop_string, bytes.fromhex(state.digest()))
            head = await self._commit(self._session_id, state, outcome)
            self.durable = self.position
            self.is_open = False
            return state, self._sessions.info(self._session_id, head)

    async def _commit(self, session_id: str, state: SessionState, outcome: Outcome) -> Head:
        """Close the turn, or drop it if nothing of it is to stay; waits a while for a store that is gone."""
        is_empty = self.position == self._rest[0]

        def change(head: Head) -> Change | None:
            if head.open is None and head.last_token == self.token:
                return None  # the store had done it when it seemed gone
            self._checked(head)
            if is_empty:
                return dropped(head)
            prompt, delivered = self.progress.prompt, self.progress.delivered
            return closed(self._sessions.renewed(head), prompt, delivered, state, outcome)

        give_up = asyncio.get_running_loop().time() + self._durability.patience_seconds
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._sessions.change(session_id, change)
            except StoreUnavailableError:
                if asyncio.get_running_loop().time() + delay > give_up:
                    raise
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY_SECONDS)

    def _checked(self, head: Head) -> OpenTurn:
        """Return the open turn in the head if it is this one; what is durable of it is then known."""
        if self._head is not None and head.created != self._head.created:
            raise SessionNotFoundError(f"sessions/{self._session_id}")  # the turn's own was deleted
        if head.open is None or head.open.token != self.token:
            self.leave()
            raise LeaseLostError(f"sessions/{self._session_id}")
        self._advance(head.open)
        return head.open

    # Ends

    def leave(self) -> None:
        """Leave the turn as it is durable, to whoever goes on with it."""
        self.is_open = False
        self._end()

    def _end(self) -> None:
        self.is_over = True
        self.needs_commit.set()

    def undo(self) -> None:
        """Let the turn be as if it had never been asked, or had not gone on."""
        self.durable, state = self._rest
        self.progress, self._saving, self._num_past = Progress(state, []), None, 0

    async def give_up(self, *, keep: bool) -> None:
        """End a turn that was cut off; `keep`: with what was delivered.

        There is nobody left to tell of an error but the log.
        """
        try:
            if self.settling is None and not (keep and self.has_news):
                self.undo()
            await (self.settling or self.settle())
        except NotThereError:
            log.info("session_gone_during_turn", session=self._session_id)
        except (LeaseLostError, StoreUnavailableError) as error:
            log.warning("turn_left_open", session=self._session_id, durable=self.durable, error=str(error))
        except ServerError as error:
            log.error("turn_lost", session=self._session_id, error=str(error))  # noqa: TRY400  expected: no traceback
        except Exception:
            log.exception("turn_lost", session=self._session_id)


def _reached(head: Head) -> tuple[bytes, int]:
    """Return which run of a turn a session has, and how far it is durable."""
    return (head.open.token, head.open.position) if head.open is not None else (b"", head.position)
