"""A turn under way: what of it was handed over, and how that is committed."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog

from elman_server import records
from elman_server.errors import EngineRestartedError, NotThereError, ServerError
from elman_server.generation import IdDetail, Job

if TYPE_CHECKING:
    from elman_server.engine import Engine
    from elman_server.session import SessionInfo
    from elman_server.sessions import Sessions
    from elman_server.state import Memory

log = structlog.get_logger(__name__)

SETTLE_TRIES: Final = 3
SETTLE_SECONDS: Final = 60.0  # the longest that a session stays busy because its engine does not come back


@dataclass(slots=True)
class Progress:
    """What a turn has read and handed over, and the memories that the engine told on the way.

    Attributes:
        start: the memory before the prompt.
        prompt, handed: ids that were fed, and ids that were drawn and given to the transport.
    """

    start: Memory
    prompt: list[int]
    handed: list[int] = field(default_factory=list)
    _memories: deque[tuple[int, Memory]] = field(default_factory=deque)

    def remember(self, num_drawn: int, memory: Memory) -> None:
        """Keep the memory after so many drawn characters."""
        self._memories.append((num_drawn, memory))

    def hand(self, ids: list[int]) -> None:
        """Note that characters were given to the transport."""
        self.handed += ids
        while len(self._memories) > 1 and self._memories[1][0] <= len(self.handed):
            self._memories.popleft()

    def nearest(self) -> tuple[Memory, list[int]]:
        """Return the last known memory not beyond what was handed over, and the ids still to be read after it."""
        if self._memories and self._memories[0][0] <= len(self.handed):
            num_drawn, memory = self._memories[0]
            return memory, self.handed[num_drawn:]
        return self.start, [*self.prompt, *self.handed]


class Turn:
    """One turn on a session, or without one for a job that keeps nothing.

    Args:
        session_id: None: nothing is committed.
        position: where the turn starts.
        seed: of its draws, unless the request brings another.
    """

    def __init__(
        self,
        engine: Engine,
        sessions: Sessions,
        session_id: str | None,
        *,
        memory: Memory,
        position: int,
        seed: int,
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._session_id = session_id
        self._position = position
        self.progress = Progress(memory, [])
        self.seed = seed
        self.settling: asyncio.Task[tuple[Memory, SessionInfo | None]] | None = None

    @property
    def position(self) -> int:
        """The position after what was handed over."""
        return self._position + len(self.progress.prompt) + len(self.progress.handed)

    async def settle(self) -> tuple[Memory, SessionInfo | None]:
        """Commit exactly what was handed over; return the memory after it and the session.

        The engine may be ahead of the reader, or gone: what lies between its last told memory and the last handed
        character is read again, which gives the same bits.
        """
        memory, unread = self.progress.nearest()
        if unread:
            memory = await self._read(memory, self.position - len(unread), unread)
        if self._session_id is None:
            return memory, None
        prompt, drawn = self.progress.prompt, self.progress.handed
        if not prompt and not drawn:
            return memory, await self._sessions.get(self._session_id)
        segment = records.Segment.of(self._position, prompt, drawn, self.seed if drawn else 0)

        def change(head: records.Head) -> records.Head:
            head = self._sessions.renewed(head)
            return msgspec.structs.replace(head, position=segment.end, turn_count=head.turn_count + 1, memory=memory)

        return memory, await self._sessions.change(self._session_id, change, segment=segment)

    async def _read(self, memory: Memory, position: int, ids: list[int]) -> Memory:
        for attempt in range(SETTLE_TRIES):
            try:
                await asyncio.wait_for(self._engine.wait_until_serving(), SETTLE_SECONDS)
                return (await read(self._engine, Job(memory, position, ids), must=True)).memory
            except (EngineRestartedError, TimeoutError):
                log.warning("turn_not_settled_yet", session=self._session_id, attempt=attempt)
        raise EngineRestartedError

    def is_unsettled(self, *, keep: bool) -> bool:
        """Whether a turn that was cut off has something to commit; `keep`: what was handed over, if anything was."""
        if self.settling is not None:
            return not self.settling.done()
        return keep and bool(self.progress.handed) and self._session_id is not None

    def undo(self) -> None:
        """Let the turn be as if it had never been asked."""
        self.progress = Progress(self.progress.start, [])

    async def give_up(self) -> None:
        """Settle a turn that was cut off; there is nobody left to tell of an error but the log."""
        try:
            await (self.settling or self.settle())
        except NotThereError:
            log.info("session_gone_during_turn", session=self._session_id)
        except ServerError as error:
            log.error("turn_lost", session=self._session_id, error=str(error))  # noqa: TRY400  expected: no traceback
        except Exception:
            log.exception("turn_lost", session=self._session_id)


class Reading(NamedTuple):
    """What a job that only reads brings: the memory after it, and details and labels as in `Output`."""

    memory: Memory
    details: list[IdDetail]
    labels: list[list[float]]


async def read(engine: Engine, job: Job, *, must: bool = False) -> Reading:
    """Run a job that only reads, with `must` however many wait."""
    details: list[IdDetail] = []
    labels: list[list[float]] = []
    with engine.open(job, must=must) as stream:
        while True:
            output = await stream.next()
            details += output.details
            labels += output.labels
            if output.memory is not None:
                return Reading(output.memory, details, labels)
