"""A turn that runs: what of it was delivered, and how that becomes durable."""

from __future__ import annotations

import asyncio
import enum
import secrets
from typing import TYPE_CHECKING, Final

import structlog
from msgspec.structs import replace

from elman_server.domain.errors import (
    EtagMismatchError,
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
from elman_server.sessions.repository import etag_of
from elman_server.sessions.transitions import Change, advanced, closed, dropped
from elman_server.turns.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from elman_server.domain.state import SessionState
    from elman_server.engine import AnyEngine
    from elman_server.sessions.records import Head, OpenTurn, Outcome, Parameters
    from elman_server.sessions.repository import Loaded
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.transitions import Durability

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 1.0


class TurnStatus(enum.Enum):
    """Where a turn is in its life."""

    PLANNED = "planned"  # nothing of it was delivered
    BEGUN = "begun"  # its server alone knows of it; only in a store that no other server shares
    OPEN = "open"  # its lease is in the session's head
    OVER = "over"  # committed, dropped, or left to another call


class RunningTurn:
    """One turn on a session, or without one for a job that keeps nothing.

    Args:
        loaded: the session as the turn found it; None: nothing is committed.
        state: what the turn begins with.

    Attributes:
        token: of its place in the head.
        start, prompt_end: the positions before and after the prompt.
        durable: the position up to where the turn is durable; before that of the session, at first.
        status: where it is in its life.
        is_ending: whether it is about to end: nothing more is made durable on the way.
        needs_commit: set when so much was delivered that it has to become durable, or when the turn ends.
        on_due: called when `needs_commit` is set for the first reason.
        settling: the commit that is under way.
        state_digest: of the state at the end, once it is settled.
    """

    def __init__(
        self,
        engine: AnyEngine,
        sessions: Sessions,
        session_id: str | None,
        *,
        loaded: Loaded | None,
        state: SessionState,
        durability: Durability,
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._session_id = session_id
        self._found = loaded.head if loaded else None
        self._loaded = loaded  # as this turn has read or written it last
        self._durability = durability
        self.token = secrets.token_bytes(8)
        self._commits = asyncio.Lock()
        self._before = (loaded.head.position if loaded else 0, state)
        self.start = self.prompt_end = self.durable = self._before[0]
        self.progress = Progress(state, [])
        self._num_past = 0  # characters of a turn without a session; they need not be kept
        # What may have become durable, by the position after it: characters, state after them. Several: a commit whose
        # answer is lost may be carried out late, after another one with more was sent.
        self._saving: dict[int, tuple[int, SessionState]] = {}
        self._parameters: Parameters | None = None
        self._is_continuation = False
        self.status = TurnStatus.PLANNED
        self.is_ending = False
        self.needs_commit = LightEvent()
        self.on_due: Callable[[], None] = lambda: None
        self.settling: asyncio.Task[Head | None] | None = None
        self.state_digest = ""

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
        """Whether a character was delivered that the session, as callers see it, lacks."""
        return self.position > max(self._before[0], self.prompt_end)

    @property
    def has_begun(self) -> bool:
        """Whether there is something to commit, to drop or to leave to another call."""
        return self.status in {TurnStatus.BEGUN, TurnStatus.OPEN}

    def plan(self, prompt: list[int]) -> None:
        """Set what is read first."""
        self.progress.prompt = prompt
        self.prompt_end = self.start + len(prompt)

    def continue_from(self, start: int, prompt_end: int, opened: OpenTurn | None) -> None:
        """Take the place of a run of this turn that was left; `opened`: it is not committed."""
        self.start, self.prompt_end = start, prompt_end
        if opened is not None:
            self.durable = opened.position
            prompt = records.unpack(opened.prompt_bytes, opened.prompt)
            self.progress = Progress(opened.state or self._before[1], prompt)

    def deliver(self, ids: list[int]) -> None:
        """Note that characters are given to the transport."""
        self.progress.deliver(ids)
        if self._session_id is None and (known := self.progress.last_state()):
            self._num_past += len(self.progress.prompt) + known[0]
            self.progress.advance(*known)
        if len(self.progress.delivered) >= self._durability.commit_chars:
            self.needs_commit.set()
            self.on_due()

    # Commits

    async def begin(
        self, parameters: Parameters, etag: str = "", *, is_continuation: bool = False, is_seen: bool = True
    ) -> None:
        """Begin: where other servers share the store, write the lease and the turn into the head.

        Args:
            parameters: what the turn was asked for.
            etag: must still hold, unless it is empty.
            is_continuation: whether the turn was committed as far as it came.
            is_seen: whether other servers must see it before anything of it is delivered.

        Raises:
            SessionBusyError: the session is not as the turn found it.
        """
        self._parameters, self._is_continuation = parameters, is_continuation
        if self._session_id is None:
            return
        if not is_seen:
            assert self._found is not None
            if etag and etag != etag_of(self._found):
                raise EtagMismatchError(f"sessions/{self._session_id}", etag_of(self._found))
            self.status = TurnStatus.BEGUN
            return

        def change(head: Head) -> Change | None:
            is_written = head.open is not None and head.open.token == self.token
            return None if is_written else Change(self._owned(head))

        await self._change(change, etag)
        self.status = TurnStatus.OPEN

    async def _change(self, change: Callable[[Head], Change | None], etag: str = "") -> Head:
        """Change the session as this turn knows it; after an error it is loaded again: it may have been changed."""
        assert self._session_id is not None
        loaded, self._loaded = self._loaded, None
        self._loaded = await self._sessions.change_loaded(self._session_id, loaded, change, etag=etag)
        return self._loaded.head

    def _owned(self, head: Head) -> Head:
        """Return a head with this turn in it; raises if it is not this turn's."""
        found, name = self._found, f"sessions/{self._session_id}"
        assert found is not None
        if head.open is not None and head.open.token == self.token:
            self.status = TurnStatus.OPEN
            self._advance(head.open)
            return head
        is_as_found = (head.last_token, *_reached(head)) == (found.last_token, *_reached(found))
        if head.created != found.created:  # the turn's own was deleted
            raise SessionBusyError(name) if self.status is TurnStatus.PLANNED else SessionNotFoundError(name)
        if self.status is TurnStatus.OPEN or not is_as_found:
            if self.status is TurnStatus.PLANNED:
                raise SessionBusyError(name)
            self.leave()
            raise LeaseLostError(name)
        return replace(head, open=self._opened(head))

    def _opened(self, head: Head) -> OpenTurn:
        expires = self._sessions.now() + self._durability.lease_seconds
        writer = self._sessions.writer
        if head.open is not None:  # another server's, or one of ours that could not commit
            return replace(head.open, token=self.token, writer=writer, lease_expires=expires, is_cancelled=False)
        assert self._parameters is not None
        prompt_bytes, prompt = records.pack(self.progress.prompt)
        return records.OpenTurn(
            token=self.token,
            writer=writer,
            lease_expires=expires,
            parameters=self._parameters,
            start=self.start,
            prompt_end=self.prompt_end,
            position=self.durable,
            num_segments=head.num_segments,
            checkpoint=head.checkpoint,
            prompt_bytes=prompt_bytes,
            prompt=prompt,
            is_continuation=self._is_continuation,
        )

    async def save(self) -> bool:
        """Make durable what can be, and renew the lease; return whether the turn was asked to end.

        Raises:
            LeaseLostError, NotThereError: the turn is not this one's any more.
        """
        async with self._commits:
            if not self.has_begun or self.is_ending:
                return False
            return await self._save()

    async def _save(self) -> bool:
        expires = self._sessions.now() + self._durability.lease_seconds

        def change(head: Head) -> Change | None:
            head = self._owned(head)
            assert head.open is not None
            known = self.progress.last_state()
            if known is None or not known[0]:
                return Change(replace(head, open=replace(head.open, lease_expires=expires)))
            self._saving[self.durable + len(self.progress.prompt) + known[0]] = known
            return advanced(head, self.progress.prompt, self.progress.delivered[: known[0]], known[1], expires)

        self.status, opened = TurnStatus.OPEN, (await self._change(change)).open
        assert opened is not None
        self._advance(opened)
        return opened.is_cancelled

    def _advance(self, opened: OpenTurn) -> None:
        """Take note of what has become durable; of a commit, too, whose answer was lost."""
        if opened.position > self.durable and (saved := self._saving.get(opened.position)):
            self.progress.advance(*saved)
            self.durable = opened.position
            self._saving.clear()  # the others were for a revision that is past

    async def settle(self, reason: FinishReason = FinishReason.CANCELLED, stop_string: str = "") -> Head | None:
        """Commit exactly what was delivered; return the session after it, None without a session.

        The engine may be ahead of the reader, or gone: what is between its last known state and the last delivered
        character is read again, which gives the same bits.
        """
        self.end()
        async with self._commits:
            state, unread = self.progress.nearest()
            if unread:
                state = await read_patiently(self._engine, Job(state, self.position - len(unread), unread))
            self.state_digest = state.digest()
            if self._session_id is None:
                self.status = TurnStatus.OVER
                return None
            outcome = records.Outcome(reason, stop_string, bytes.fromhex(self.state_digest))
            head = await self._commit(state, outcome)
            self.durable = self.position
            self.status = TurnStatus.OVER
            return head

    @property
    def can_settle_at_once(self) -> bool:
        """Whether `settle` waits for nothing: it then needs no task to outlive its caller."""
        is_here = self._session_id is None or not self._sessions.is_shared
        return is_here and not self._commits.locked() and not self.progress.nearest()[1]

    async def _commit(self, state: SessionState, outcome: Outcome) -> Head:
        """Close the turn, or drop it if nothing of it is to stay; waits a while for a store that is down."""
        is_empty = self.position == self._before[0]
        if is_empty and self.status is TurnStatus.BEGUN:
            return await self._change(lambda _: None)

        def change(head: Head) -> Change | None:
            if head.open is None and head.last_token == self.token:
                return None  # the store had done it when it seemed to be down
            head = self._owned(head)
            if is_empty:
                return dropped(head)
            prompt, delivered = self.progress.prompt, self.progress.delivered
            return closed(self._sessions.renewed(head), prompt, delivered, state, outcome)

        give_up = asyncio.get_running_loop().time() + self._durability.patience_seconds
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._change(change)
            except StoreUnavailableError:
                if asyncio.get_running_loop().time() + delay > give_up:
                    raise
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY_SECONDS)

    # Ends

    async def give_way(self) -> None:
        """Leave the turn to another call that continues it, where that can find it."""
        try:
            if self.status is TurnStatus.BEGUN:
                async with self._commits:
                    await self._save()
        except ServerError as error:
            log.warning("turn_not_found_by_next", session=self._session_id, error=str(error))
        self.leave()

    def leave(self) -> None:
        """Leave the turn as it is durable, to anyone who continues it."""
        self.status = TurnStatus.OVER
        self.end()

    def end(self) -> None:
        """Begin to end: nothing more becomes durable on the way."""
        self.is_ending = True
        self.needs_commit.set()

    def undo(self) -> None:
        """Let the turn be as if it had never been asked, or had not continued."""
        self.durable, state = self._before
        self.progress, self._saving, self._num_past = Progress(state, []), {}, 0

    async def give_up(self, *, keep: bool) -> None:
        """End a turn that was cut off; `keep`: with what was delivered.

        No caller is left: an error goes to the log only.
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
