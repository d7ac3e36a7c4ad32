"""(h) Power cuts under SQLite: whatever the moment, the file opens and holds every turn that was told to be durable.

A real server is watched by strace while it takes turns; then its file is put together again as it was between any two
writes: as a kill leaves it (all writes up to there) and as a power cut may (what was not synced is lost, or in part, or
torn). Nothing is sampled: every moment is looked at.
"""

import asyncio
import math
import random
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from elman_client import AsyncClient, Chunk, Finished
from elman_server.errors import SessionNotFoundError, TurnNotFoundError
from elman_server.requests import GenerateRequest, SamplingRequest
from elman_server.session import Expiration
from elman_server.stores import SqliteStore
from tests.e2e.wire import PATIENCE, PROMPT
from tests.models import tiny_model
from tests.server.house import House
from tests.server.replicas import QUICK, Replica, asked
from tests.server_process import ServerProcess
from tests.services import need

NUM_SESSIONS: Final = 3
LENGTH: Final = 200
FLAGS: Final = ("--commit-chars", "40", "--commit-seconds", "0.05", "--lease-seconds", "0.2")
SYNCS: Final = ("fdatasync", "fsync")
SECTOR: Final = 512  # bytes that a disk writes whole
CALLS: Final = "pwrite64,ftruncate,fdatasync,fsync,unlink"
TRACED: Final = re.compile(r"(\d+\.\d+) (\w+)\((?:\d+<)?\"?((?:\\x[0-9a-f]{2})+)[>\"](?:, (.*))?\) += (-?\d+)")


@dataclass(frozen=True)
class Write:
    """What was done to a file: `pwrite64`, `ftruncate`, `fdatasync`, `fsync` or `unlink`; `at` is unix seconds."""

    at: float
    what: str
    file: str
    data: bytes = b""
    offset: int = 0


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


# What happened


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A directory of one small model."""
    folder: Path = tmp_path_factory.mktemp("models")
    tiny_model(folder / "tiny.onnx", "gru", name="tiny")
    return folder


@pytest.fixture(scope="module")
def watched(models, tmp_path_factory) -> tuple[list[Write], list[Told]]:
    """All writes of a server from its start on, and what its clients were told meanwhile."""
    need("strace", is_there=shutil.which("strace") is not None)
    folder: Path = tmp_path_factory.mktemp("watched")
    (folder / "trace").mkdir()
    strace = [
        "strace",
        "-D",
        "-ff",
        "--seccomp-bpf",
        "-qq",
        "-ttt",
        "-y",
        "-xx",
        "-s",
        "1000000",
        "-e",
        f"trace={CALLS}",
    ]
    launcher = [*strace, "-e", "signal=none", "-o", str(folder / "trace" / "of")]
    told = [Told(number) for number in range(NUM_SESSIONS)]
    store = f"sqlite:{folder / 'sessions.db'}"
    with ServerProcess(models, "--store", store, *FLAGS, launcher=launcher) as server:
        asyncio.run(work(server.address, told))
        server.terminate()
        assert server.wait() == 0
    return list(writes_of(folder / "trace")), told


async def work(target: str, told: Sequence[Told]) -> None:
    """Take a long turn on each session at once, then short ones."""

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
        appended = await made.append(PROMPT)
        session.durable.append((time.time(), appended.session.position))

    async with AsyncClient(target, timeout=PATIENCE) as client:
        await asyncio.gather(*(one(client, session) for session in told))


def writes_of(trace: Path) -> Iterator[Write]:
    """Yield what the threads of a server did to its file and the files beside it, in order."""
    lines = [line for file in trace.iterdir() for line in file.read_text().splitlines() if line[0].isdigit()]
    for line in sorted(lines, key=lambda line: float(line.partition(" ")[0])):
        match = TRACED.match(line)
        if match is None or match[5] == "-1":
            continue
        file = Path(_bytes(match[3]).decode()).name
        if not file.startswith("sessions.db") or file.endswith("-shm"):
            continue  # the shared memory is no part of what lasts: SQLite makes it anew
        at, what, rest = float(match[1]), match[2], match[4] or ""
        if what == "pwrite64":
            data, size, offset = re.fullmatch(r'"([^"]*)", (\d+), (\d+)', rest).groups()  # type: ignore[union-attr]
            assert len(_bytes(data)) == int(size) == int(match[5])
            yield Write(at, what, file, _bytes(data), int(offset))
        else:
            yield Write(at, what, file, offset=int(rest) if what == "ftruncate" else 0)


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


# What is left after a cut


class Disk:
    """The files as a program sees them, and as they are on the disk."""

    def __init__(self) -> None:
        self.seen: dict[str, bytearray] = {}
        self.synced: dict[str, bytearray] = {}
        self.waiting: list[Write] = []  # for a sync

    def do(self, write: Write) -> None:
        """Follow one write."""
        if write.what in SYNCS:
            self.synced[write.file] = bytearray(self.seen.get(write.file, b""))
            self.waiting = [other for other in self.waiting if other.file != write.file]
            return
        apply(self.seen, write)
        if write.what == "unlink":
            self.synced.pop(write.file, None)
        else:
            self.waiting.append(write)

    def after_power_cut(self, chance: random.Random) -> dict[str, bytearray]:
        """Return what may be left: of what was not synced any part, and the last of it torn."""
        files = {name: bytearray(data) for name, data in self.synced.items()}
        kept = [write for write in self.waiting if chance.random() < 0.5]
        for write in kept:
            size = len(write.data)
            if write is kept[-1] and size > SECTOR:
                size = chance.randrange(size // SECTOR) * SECTOR
            apply(files, Write(write.at, write.what, write.file, write.data[:size], write.offset))
        return files


def apply(files: dict[str, bytearray], write: Write) -> None:
    """Do to files what was done."""
    if write.what == "unlink":
        files.pop(write.file, None)
        return
    data = files.setdefault(write.file, bytearray())
    if write.what == "ftruncate":
        data[:] = data[: write.offset].ljust(write.offset, b"\0")
    else:
        end = write.offset + len(write.data)
        data[:] = data.ljust(end, b"\0")
        data[write.offset : end] = write.data


def cuts(writes: Sequence[Write], kind: str) -> Iterator[tuple[float, dict[str, bytearray]]]:
    """Yield what is left after a cut at every moment, and the moment up to which it may have come."""
    disk, chance = Disk(), random.Random(0)
    for number, write in enumerate(writes):
        disk.do(write)
        following = writes[number + 1 :]
        if kind == "killed" and write.what not in SYNCS:
            yield _first(following), disk.seen
        elif kind == "all unsynced lost" and write.what in SYNCS:
            yield _first(other for other in following if other.what in SYNCS), disk.synced
        elif kind == "some unsynced lost":
            yield _first(following), disk.after_power_cut(chance)


def _first(writes: Iterable[Write]) -> float:
    return next((write.at for write in writes), math.inf)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["killed", "all unsynced lost", "some unsynced lost"])
async def test_between_any_two_writes_nothing_durable_is_lost(watched, models, tmp_path, kind):
    """Every file that a cut may leave opens, is sound, has what was told, and every session goes on as undisturbed."""
    writes, told = watched
    async with House([models / "tiny.onnx"]) as house:
        after = After(house, told, [await undisturbed(house, session) for session in told])
        for moment, files in cuts(writes, kind):
            folder = tmp_path / "cut"
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
            await after.check(folder / "sessions.db", moment)
            shutil.rmtree(folder)
    assert after.num_checked > (100 if kind != "all unsynced lost" else 10)
    assert len(after.known) > 3 * NUM_SESSIONS  # there were sessions at many stages of their turns


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

    def __init__(self, house: House, told: Sequence[Told], whole: Sequence[str]) -> None:
        self._house, self._told, self._whole = house, told, whole
        self.known: set[tuple[str, bytes, tuple[bytes, ...]]] = set()
        self.num_checked = 0

    async def check(self, path: Path, moment: float) -> None:
        """See that a file is sound, has what was told before a moment, and that its sessions go on."""
        store = SqliteStore(path, 100)
        replica = Replica(self._house, QUICK, time.time, store)
        for session, text in zip(self._told, self._whole, strict=True):
            try:
                head, stored = await replica.sessions.load(session.name)
            except SessionNotFoundError:
                assert not 0 < session.made < moment
                continue
            durable = max(head.position, head.open.position if head.open else 0)
            assert durable >= session.at(moment)
            record = (session.name, stored.head, tuple(await store.segments(session.name)))
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
        end = PROMPT if durable > len(PROMPT) + LENGTH else ""
        assert (await replica.sessions.transcript(session.name, 0, None)).text == PROMPT + text + end
