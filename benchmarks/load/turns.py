"""The load of short turns on sessions: from all of them all the time, from one after another, from all at once.

The sessions are those numbered from `first` on, `sessions` of them; a turn reads one character and generates `chars`.
All calls share one connection: with more of them the rates are the same within the noise.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.load.http2 import Connection
from benchmarks.load.sessions import name_of
from benchmarks.processes import cpu_seconds
from elman.v1.generation_pb2 import GenerateRequest, GenerateResponse, Stopping
from elman.v1.sampling_pb2 import Sampling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import grpc

GENERATE: Final = "/elman.v1.GenerationService/Generate"
MAX_TURNS: Final = 100_000  # of one load, whatever its time
MAX_RECORDED: Final = 64
PATIENCE: Final = 30.0  # for what is running at the end of a load
BETWEEN_BURSTS: Final = 0.1
PAUSE: Final = 0.01  # at most, between two turns on idle sessions
WARM_SECONDS: Final = 0.3


@dataclass
class Turn:
    """One turn, as the receiver of its call."""

    session: int
    on_end: Callable[[Turn], None]
    begin: float = field(default_factory=time.perf_counter)
    first: float = 0.0  # when its first character came
    num_chars: int = 0
    messages: list[bytes] = field(default_factory=list)

    def message(self, data: bytes) -> None:
        """Count the text. A message may hold any of Started, Chunk and Finished together."""
        self.messages.append(data)
        response = GenerateResponse.FromString(data)
        if response.HasField("chunk") and (text := response.chunk.text):
            self.first = self.first or time.perf_counter()
            self.num_chars += len(text)

    def end(self) -> None:
        """See the turn end."""
        self.on_end(self)


class Turns:
    """Runs turns of one kind on one connection."""

    def __init__(self, connection: Connection, options: dict[str, Any]) -> None:
        self._connection = connection
        self._chars: int = options["chars"]
        self._requests = [self._request(options["first"] + number, options) for number in range(options["sessions"])]

    def _request(self, session: int, options: dict[str, Any]) -> bytes:
        sampling = Sampling(**options["sampling"])
        turn = GenerateRequest(
            session=name_of(session), prompt="A", sampling=sampling, stopping=Stopping(max_chars=self._chars)
        )
        return turn.SerializeToString()

    @property
    def sessions(self) -> range:
        """The sessions, counted from 0."""
        return range(len(self._requests))

    def begin(self, session: int, on_end: Callable[[Turn], None]) -> Turn:
        """Begin a turn; it is sent with the connection's next flush."""

        def end(turn: Turn) -> None:
            if turn.num_chars != self._chars:
                raise RuntimeError(f"a turn of {self._chars} characters has {turn.num_chars}")
            on_end(turn)

        turn = Turn(session, end)
        self._connection.call(GENERATE, self._requests[session], turn)
        return turn

    async def run(self, *sessions: int) -> list[Turn]:
        """Run one turn on each of these sessions, all begun together; return when all have ended."""
        ended: list[Turn] = []
        done = asyncio.Event()

        def on_end(turn: Turn) -> None:
            ended.append(turn)
            if len(ended) == len(sessions):
                done.set()

        for session in sessions:
            self.begin(session, on_end)
        self._connection.flush()
        await self.wait(done.wait(), PATIENCE)
        return ended

    async def wait(self, what: Awaitable[Any], seconds: float) -> None:
        """Wait for something, at most this long, or for the connection's failure."""
        task = asyncio.ensure_future(what)
        failure = self._connection.failure
        done, _ = await asyncio.wait((task, failure), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if failure in done:
            failure.result()
        if task not in done:
            raise TimeoutError(f"no end after {seconds} seconds")


class Conversations:
    """A turn on every session all the time.

    Attributes:
        begun: all turns so far.
        whole_turn: is set when a turn has ended that began after `watch`.
        all_ended: is set when the last turn has ended, after `stop`.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._is_stopped = False
        self._num_ended = 0
        self._watched_from = math.inf
        self.begun: list[Turn] = []
        self.whole_turn = asyncio.Event()
        self.all_ended = asyncio.Event()

    def begin(self) -> None:
        """Begin a turn on every session."""
        for session in self._turns.sessions:
            self._begin(session)

    def watch(self) -> None:
        """Begin to watch for a whole turn."""
        self._watched_from = time.perf_counter()

    def stop(self) -> None:
        """Begin no more turns."""
        self._is_stopped = True

    def num_chars(self) -> int:
        """Return how many characters came so far."""
        return sum(turn.num_chars for turn in self.begun)

    def num_messages(self) -> int:
        """Return how many messages came so far."""
        return sum(len(turn.messages) for turn in self.begun)

    def _begin(self, session: int) -> None:
        self.begun.append(self._turns.begin(session, self._on_end))

    def _on_end(self, turn: Turn) -> None:
        self._num_ended += 1
        if turn.begin >= self._watched_from:
            self.whole_turn.set()
        if not self._is_stopped and len(self.begun) < MAX_TURNS:
            self._begin(turn.session)
        elif self._num_ended == len(self.begun):
            self.all_ended.set()


async def conversations(_: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Keep a turn on every session for `seconds`, longer if no turn was whole; return turns a second and their cost.

    Turns are counted by their characters. `recorded` are the messages of some turns, in hexadecimal.
    """
    async with _connection(options["address"]) as connection:
        turns = Turns(connection, options)
        load = Conversations(turns)
        load.begin()
        connection.flush()
        await turns.wait(asyncio.sleep(WARM_SECONDS), PATIENCE)
        pids = options.get("pids", [])
        load.watch()
        before = _Spent.now(pids)
        num_before, chars, messages = len(load.begun), load.num_chars(), load.num_messages()
        await turns.wait(asyncio.sleep(options["seconds"]), PATIENCE)
        await turns.wait(load.whole_turn.wait(), PATIENCE)
        spent = _Spent.now(pids) - before
        num_turns = (load.num_chars() - chars) / options["chars"]
        messages = load.num_messages() - messages
        load.stop()
        await turns.wait(load.all_ended.wait(), PATIENCE)
    return {
        "turns": num_turns / spent.seconds,
        "messages": messages / num_turns,
        "cpu": [used / num_turns for used in spent.cpu],
        "client_cores": spent.client / spent.seconds,
        "recorded": [[data.hex() for data in turn.messages] for turn in load.begun[num_before:][:MAX_RECORDED]],
    }


async def one_by_one(_: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Run `turns` turns, one after another with a short pause; return the seconds to each first character."""
    async with _connection(options["address"]) as connection:
        turns, found = Turns(connection, options), []
        for number in range(options["turns"]):
            await turns.wait(asyncio.sleep(random.uniform(0, PAUSE)), PATIENCE)
            (turn,) = await turns.run(turns.sessions[number % len(turns.sessions)])
            found.append(turn.first - turn.begin)
    return {"p50": statistics.median(found)}


async def all_at_once(_: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Begin a turn on every session at once, `bursts` times; return the medians of the seconds to a first character."""
    async with _connection(options["address"]) as connection:
        turns, found = Turns(connection, options), []
        for _number in range(options["bursts"]):
            await turns.wait(asyncio.sleep(BETWEEN_BURSTS), PATIENCE)
            ended = await turns.run(*turns.sessions)
            begin = min(turn.begin for turn in ended)
            found.append(statistics.median(turn.first - begin for turn in ended))
    return {"p50": statistics.median(found)}


@asynccontextmanager
async def _connection(address: str) -> AsyncIterator[Connection]:
    connection = await Connection.open(address)
    try:
        yield connection
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class _Spent:
    """The time so far: of the clock, of the CPU for some processes, and for this one."""

    seconds: float
    client: float
    cpu: list[float]

    @classmethod
    def now(cls, pids: list[int]) -> _Spent:
        return cls(time.perf_counter(), time.process_time(), [cpu_seconds(pid) for pid in pids])

    def __sub__(self, earlier: _Spent) -> _Spent:
        cpu = [now - then for now, then in zip(self.cpu, earlier.cpu, strict=True)]
        return _Spent(self.seconds - earlier.seconds, self.client - earlier.client, cpu)


MODES: Final = {"conversations": conversations, "one_by_one": one_by_one, "all_at_once": all_at_once}
