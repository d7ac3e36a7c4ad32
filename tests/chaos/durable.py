"""What clients were told to be durable, and what a store has to hold of it whatever happened to the server."""

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from elman_client import AsyncClient, Chunk, Finished
from elman_server.domain.errors import SessionNotFoundError, TurnNotFoundError
from elman_server.domain.requests import GenerateRequest, SamplingRequest
from elman_server.sessions.session import Expiration
from elman_server.sessions.stores import SqliteStore
from tests.e2e.wire import PATIENCE, PROMPT
from tests.server.house import House
from tests.server.replicas import QUICK, Replica, asked

NUM_SESSIONS: Final = 3
LENGTH: Final = 200


@dataclass
class Told:
    """What the client of one session was told to be durable, and when; `made` is when the session was there."""

    number: int
    request_id: uuid.UUID = field(default_factory=uuid.uuid4)
    made: float = 0.0
    durable: list[tuple[float, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The session's."""
        return f"session-{self.number}"

    @property
    def id(self) -> bytes:
        """The request id of its long turn, as the server keeps it."""
        return self.request_id.bytes

    def at(self, moment: float) -> int:
        """Return the position that was told to be durable before a moment."""
        return max((position for at, position in self.durable if at < moment), default=0)


async def work(target: str, told: Sequence[Told], num_appends: int = 1) -> list[BaseException | None]:
    """Take a long turn on each session at once, then short ones; return what each ended with."""

    async def one(client: AsyncClient, session: Told) -> None:
        made = await client.create_session("tiny", session_id=session.name, seed=session.number)
        session.made = time.time()
        async for event in made.generate(
            PROMPT, max_chars=LENGTH, chunk_chars=5, request_id=str(session.request_id)
        ).events():
            if isinstance(event, Chunk) and event.committed_position:
                session.durable.append((time.time(), event.committed_position))
            if isinstance(event, Finished):
                session.durable.append((time.time(), event.position))
        for _ in range(num_appends):
            appended = await made.append(PROMPT)
            session.durable.append((time.time(), appended.session.position))

    async with AsyncClient(target, timeout=PATIENCE, retry_seconds=0) as client:
        return await asyncio.gather(*(one(client, session) for session in told), return_exceptions=True)


async def create(replica: Replica, session: Told) -> None:
    """Make a session as the client did."""
    await replica.sessions.create(
        model="tiny", version=None, session_id=session.name, seed=session.number, expiration=Expiration(), labels={}
    )


def long_turn(session: Told) -> GenerateRequest:
    """Return the request that its client sent."""
    return asked(session.name, session.id, PROMPT, LENGTH, SamplingRequest())


async def undisturbed(house: House, session: Told) -> str:
    """Return what a session says in its long turn."""
    replica = Replica(house)
    await create(replica, session)
    return (await replica.generate(long_turn(session))).text


class After:
    """What has to hold after a cut.

    Attributes:
        known: records of sessions that are known to go on as they should.
    """

    def __init__(self, house: House, whole: Sequence[str]) -> None:
        self._house, self._whole = house, whole
        self.known: set[tuple[str, bytes, tuple[bytes, ...]]] = set()
        self.num_checked = 0

    @classmethod
    async def of(cls, house: House, num_sessions: int) -> Self:
        """Return it for sessions on a house's model, which has none yet."""
        return cls(house, [await undisturbed(house, Told(number)) for number in range(num_sessions)])

    async def check(self, path: Path, told: Sequence[Told], moment: float) -> None:
        """See that a file is sound, has what was told before a moment, and that its sessions go on."""
        store = SqliteStore(path, 100)
        replica = Replica(self._house, QUICK, store=store)
        for session, text in zip(told, self._whole, strict=True):
            try:
                head = (await replica.sessions.load(session.name)).head
            except SessionNotFoundError:
                assert not 0 < session.made < moment
                continue
            durable = max(head.position, head.open.position if head.open else 0)
            assert durable >= session.at(moment)
            record = (session.name, (await store.load(session.name)).head, tuple(await store.segments(session.name)))
            if record not in self.known:
                self.known.add(record)
                await self._goes_on(replica, session, text, durable)
        await store.close()
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        self.num_checked += 1

    async def _goes_on(self, replica: Replica, session: Told, text: str, durable: int) -> None:
        """Go on with the long turn, or begin it, and see that nothing is lost or doubled."""
        try:
            again = await replica.resume(session.name, session.id)
        except TurnNotFoundError:
            assert durable == 0
            again = await replica.generate(long_turn(session))
        assert again.text == text
        num_appends, rest = divmod(max(0, durable - len(PROMPT) - LENGTH), len(PROMPT))
        assert rest == 0
        assert (await replica.sessions.transcript(session.name, 0, None)).text == PROMPT + text + num_appends * PROMPT
