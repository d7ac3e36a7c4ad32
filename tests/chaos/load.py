"""The readers, what they must have read, and the report."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from grpc import aio

from elman_client import (
    AsyncClient,
    AsyncSession,
    CharacterDetail,
    Chunk,
    Finished,
    FinishReason,
    GenerateOptions,
    Started,
)
from elman_client._shared.connection import CHANNEL_OPTIONS
from elman_server.sessions.records import Head, Segment, decode
from elman_server.sessions.stores.redis.store import RedisStore
from tests.models import CHARACTERS
from tests.server_process import PATIENCE

FEW_STREAMS: Final = 24  # of the short form, six of each kind
MANY_STREAMS: Final = 64
LENGTH: Final = 1500
PROMPT: Final = "What is the city but the people?\n"
LINE: Final = "Speak, speak.\n"  # that is fed after each text
TURN: Final = len(PROMPT) + LENGTH + len(LINE)
REPORTS: Final = Path(__file__).parent.parent.parent / "build/chaos"
# Streams differ in all that a turn that is gone on with has to find again.
_KINDS: Final[Sequence[GenerateOptions]] = (
    {"temperature": 0.8, "top_p": 0.9},
    {"repetition_penalty": 1.3, "repetition_window": 200},
    {"top_k": 20, "chunk_chars": 7},
    {"log_probability": True, "top_n": 20},  # of which the windows of the network take less than LENGTH
)
_SLOW: Final = 3  # the kind that does not read beyond GATE before all faults of a round are made
GATE: Final = LENGTH // 5


@dataclass(frozen=True)
class Fault:
    """Something that is done to a cluster.

    Attributes:
        name: for the report.
        share: of a round's characters, after which it is made.
        strike: done at once, between two characters.
        mend: takes its time; the next fault is made after it.
    """

    name: str
    share: float
    strike: Callable[[], object]
    mend: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Turn:
    """What one turn gave: its text, its details, the state after it and the one after the line."""

    text: str
    details: tuple[CharacterDetail, ...]
    state_digest: str
    last_digest: str


@dataclass
class Report:
    """What a scenario was seen to do.

    Attributes:
        seed: by which the replicas were chosen.
        sessions: each of which had a stream open at the same time as all others.
        streams: turns in all.
        faults: what was done, and how often.
        resumes: streams that broke and were gone on with.
        characters_compared: drawn ones, each with the one of an undisturbed run.
        fenced: turns that a server found to be another's, and did not write.
    """

    scenario: str
    seed: int
    sessions: int
    streams: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    resumes: int = 0
    characters_compared: int = 0
    fenced: int = 0
    seconds: float = 0.0

    def note(self, fault: str) -> None:
        """Count something that was done."""
        self.faults[fault] = self.faults.get(fault, 0) + 1

    def save(self) -> None:
        """Print it, and keep it under build/."""
        line = json.dumps(asdict(self))
        print(line)  # noqa: T201  pytest shows it with -rP
        REPORTS.mkdir(parents=True, exist_ok=True)
        (REPORTS / f"{self.scenario}.json").write_text(line + "\n")


class Load:
    """Many sessions that take their turns at the same time.

    Args:
        client: of the servers.
        name: of the sessions, with a number behind.
        num_sessions: how many.
        model: of all of them.
    """

    def __init__(self, client: AsyncClient, name: str, num_sessions: int, model: str = "gru") -> None:
        self.num_sessions = num_sessions
        self._client = client
        self._model = model
        self._name = name
        self._sessions: list[AsyncSession] = []
        self._num_read = self._num_begun = 0  # characters and streams of this round
        self._read = asyncio.Condition()
        self.turns: list[list[Turn]] = []  # by round, by session
        self._num_opened = 0
        # Windows that grow with the haste of the machine would take the whole text of a reader that stands still.
        options = [*CHANNEL_OPTIONS, ("grpc.http2.bdp_probe", 0)]
        client._transport.__dict__["_channel"] = aio.insecure_channel(client._transport.connection.target, options)
        open_stream = client._transport.open

        def opened(operation: Any, timeout: Any) -> Any:
            self._num_opened += 1
            return open_stream(operation, timeout)

        client._transport.open = opened  # type: ignore[method-assign]  # to count the streams that it takes

    async def start(self) -> None:
        """Create the sessions."""
        names = [f"{self._name}-{number:02}" for number in range(self.num_sessions)]
        create = self._client.create_session
        created = [create(self._model, session_id=name, seed=seed) for seed, name in enumerate(names)]
        self._sessions = await asyncio.gather(*created)

    async def round(self, *faults: Fault) -> None:
        """Let every session read a prompt and draw a text, while faults are made one after the other."""
        self._num_read = self._num_begun = 0
        self._gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._turn(number)) for number in range(self.num_sessions)]
            for fault in faults:
                await self._until(fault.share * self.num_sessions * LENGTH)
                fault.strike()
                await asyncio.to_thread(fault.mend)
            self._gate.set()
        self.turns.append([task.result() for task in tasks])

    async def _until(self, num_chars: float) -> None:
        """Wait until every stream has begun, and so much has been read of all of them."""
        async with self._read:
            await self._read.wait_for(lambda: self._num_begun == self.num_sessions and self._num_read >= num_chars)

    async def _turn(self, number: int) -> Turn:
        """Take one turn, and feed a line after it; the positions follow one another without a gap."""
        session, start = self._sessions[number], len(self.turns) * TURN
        position = start + len(PROMPT)
        options: GenerateOptions = {**_KINDS[number % len(_KINDS)], "max_chars": LENGTH}
        turn = session.generate(PROMPT, **options)
        text, details, ends, committed = "", list[CharacterDetail](), list[Finished](), 0
        async for event in turn.events():
            if isinstance(event, Started):
                assert (event.start_position, event.prompt_chars) == (start, len(PROMPT)), (
                    event,
                    start,
                    len(self.turns),
                )
            elif isinstance(event, Chunk):
                is_first, text = not text, text + event.text
                details += event.details
                assert event.position == position + len(text)
                # What is told again after a resume is durable further than it is told; and never less than before.
                assert committed <= event.committed_position <= position + LENGTH
                committed = event.committed_position
                await self._count(len(event.text), is_first=is_first)
                if number % len(_KINDS) == _SLOW and len(text) > GATE:
                    await self._gate.wait()
            else:
                ends.append(event)
        (end,) = ends
        assert (end.finish_reason, end.position) == (FinishReason.MAX_CHARS, position + LENGTH)
        appended = await session.append(LINE)
        assert appended.session.position == start + TURN
        return Turn(text, tuple(details), end.state_digest, appended.session.state_digest)

    async def _count(self, num_chars: int, *, is_first: bool) -> None:
        async with self._read:
            self._num_read += num_chars
            self._num_begun += is_first
            self._read.notify_all()

    async def check_store(self, redis_url: str) -> None:
        """Compare all that was read with what lies in the store itself."""
        store = RedisStore(redis_url, timeout=PATIENCE)
        try:
            for number, session in enumerate(self._sessions):
                text = "".join(PROMPT + turns[number].text + LINE for turns in self.turns)
                assert await _stored(store, session.name.removeprefix("sessions/")) == text, session.name
        finally:
            await store.close()

    async def end(self) -> None:
        """Delete the sessions."""
        await asyncio.gather(*(session.delete() for session in self._sessions))

    async def check(self, undisturbed: Sequence[Sequence[Turn]], report: Report) -> None:
        """Compare all that was read with an undisturbed run, and with what the servers now tell.

        Args:
            undisturbed: by round, by session.
            report: takes the figures.
        """
        for number, session in enumerate(self._sessions):
            mine = [turns[number] for turns in self.turns]
            assert mine == [turns[number] for turns in undisturbed[: len(mine)]], session.name
            text = "".join(PROMPT + turn.text + LINE for turn in mine)
            transcript = await session.transcript()
            assert transcript.text == text, session.name
            bounds = [(turn.start, turn.prompt_end, turn.end) for turn in transcript.turns]
            assert bounds == _bounds(len(mine)), session.name
            info = await session.refresh()
            assert (info.position, info.turn_count) == (len(text), 2 * len(mine)), session.name
            assert info.state_digest == mine[-1].last_digest, session.name
            report.characters_compared += sum(len(turn.text) for turn in mine)
        report.streams = self.num_sessions * len(self.turns)
        report.resumes = self._num_opened - report.streams


def _bounds(num_rounds: int) -> list[tuple[int, int, int]]:
    """Return start, end of the prompt and end of each turn, a text and an append in every round."""
    bounds = []
    for start in range(0, num_rounds * TURN, TURN):
        drawn, fed = start + len(PROMPT), start + TURN
        bounds += [(start, drawn, drawn + LENGTH), (drawn + LENGTH, fed, fed)]
    return bounds


async def _stored(store: RedisStore, name: str) -> str:
    """Return the text of a session as it lies in the store: one segment ends where the next one begins."""
    head = decode((await store.load(name)).head, Head, name)
    assert head.open is None
    segments = [decode(data, Segment, name, place) for place, data in enumerate(await store.segments(name))]
    assert len(segments) == head.num_segments
    assert [0, *(segment.end for segment in segments)] == [*(segment.start for segment in segments), head.position]
    return "".join(CHARACTERS[character] for segment in segments for character in segment.ids)
