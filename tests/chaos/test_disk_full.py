"""(g) The disk under SQLite fills while 32 streams run: nothing is told that is not stored, and it heals by itself."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest

from elman_client import AsyncClient, Chunk, Client, ElmanError, Finished
from tests.e2e.wire import PROMPT
from tests.server_process import ServerProcess
from tests.services import need

PATIENCE: Final = 500  # seconds of every call's deadline, so that no test hangs
NUM_STREAMS: Final = 32
LENGTH: Final = 600
SHORT: Final = 50  # characters of a turn that every session takes before, and of one after
DISK_BYTES: Final = 32 * 2**20  # SQLite lets its log grow to 4 MB
NUM_IDLE: Final = 5
ROOM_SECONDS: Final = 20  # after which a call was not refused, but waits for an engine that is stopped
Then = Literal["free", "wait", "leave"]
QUICK: Final = ("--commit-seconds", "0.1", "--commit-chars", "200", "--lease-seconds", "1")


@dataclass
class Disk:
    """Where the file lies, and how that disk gets full.

    Attributes:
        fill: leaves a server's process no room; `free` gives it back, also if there is none: 0.
    """

    folder: Path
    fill: Callable[[int], None]
    free: Callable[[int], None]


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request, tmp_path) -> Iterator[Disk]:
    """A file system of its own that is filled, or any, where the server's files may not grow (RLIMIT_FSIZE)."""
    folder: Path = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        yield Disk(
            folder,
            lambda pid: _limit(pid, _largest(folder)),
            lambda pid: _limit(pid, resource.RLIM_INFINITY) if pid else None,
        )
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    need("the right to mount a small file system", is_there=is_mounted, switch="REQUIRE_MOUNT")
    ballast = folder / "ballast"
    try:
        yield Disk(folder, lambda _: _fill(ballast), lambda _: ballast.unlink())
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _largest(folder: Path) -> int:
    return max(file.stat().st_size for file in folder.iterdir() if not file.name.endswith(("-shm", ".reserve")))


def _limit(pid: int, num_bytes: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def expected(server_process) -> list[str]:
    """What each session says in its three turns, from a server that nobody disturbs."""

    async def text(client: AsyncClient, seed: int) -> str:
        session = await client.create_session("lstm", seed=seed)
        return "".join([text async for text in session.generate(PROMPT, max_chars=SHORT + LENGTH + SHORT)])

    async def all_texts() -> list[str]:
        async with AsyncClient(server_process.address, timeout=PATIENCE) as client:
            return await asyncio.gather(*(text(client, seed) for seed in range(NUM_STREAMS)))

    return asyncio.run(all_texts())


@dataclass
class Stream:
    """What the reader of one session's long turn has seen.

    Attributes:
        committed: the highest position that was told to be durable.
        error: that it ended with.
    """

    number: int
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    text: str = ""
    committed: int = 0
    is_finished: bool = False
    error: ElmanError | None = None
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    has_all: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The session's."""
        return f"stream-{self.number:02}"

    async def begin(self, client: AsyncClient) -> None:
        """Take a turn before the disk is full."""
        session = await client.create_session("lstm", session_id=self.name, seed=self.number)
        turn = session.generate(PROMPT, max_chars=SHORT)
        async for _ in turn:
            pass
        self.committed = turn.finished.position

    async def read(self, client: AsyncClient) -> None:
        """Read the long turn until it ends, one way or another."""
        turn = client.session(self.name).generate(max_chars=LENGTH, chunk_chars=50, request_id=self.request_id)
        try:
            async for event in turn.events():
                self.has_begun.set()
                if isinstance(event, Chunk):
                    self.text += event.text
                    self.committed = max(self.committed, event.committed_position)
                    if len(self.text) == LENGTH:
                        self.has_all.set()
                elif isinstance(event, Finished):
                    self.is_finished, self.committed = True, event.position
        except ElmanError as error:
            self.error = error
        finally:
            self.has_begun.set()
            self.has_all.set()


async def refused(client: AsyncClient) -> None:
    """See that what would have to be stored is refused as UNAVAILABLE, with a time to retry."""
    for number in range(NUM_IDLE):
        session = client.session(idle(number))
        errors: list[object] = [await until_refused(client)]
        for call in (session.append("x"), session.rewind(0)):
            # SQLite may begin its log anew in between, and has room for a while.
            errors += await asyncio.gather(asyncio.wait_for(call, ROOM_SECONDS), return_exceptions=True)
        if all(isinstance(error, ElmanError) for error in errors):
            break
    for error in errors:
        assert isinstance(error, ElmanError)
        assert (error.code, error.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
        assert error.retry_after
    assert (await client.get_session(session.name)).info.position == 1  # reading needs no room


def idle(number: int) -> str:
    """Return the name of a session that nothing happens to."""
    return f"idle-{number}"


async def until_refused(client: AsyncClient) -> ElmanError:
    """Make sessions until the file has no room left for one."""
    while True:
        try:
            await client.create_session("lstm")
        except ElmanError as error:
            return error


async def streams_meet_a_full_disk(server: ServerProcess, disk: Disk, then: Then) -> list[Stream]:
    """Let all streams draw while the disk is full; once each has all of its text, free it, wait or leave."""
    streams = [Stream(number) for number in range(NUM_STREAMS)]
    async with AsyncClient(server.address, timeout=PATIENCE, retry_seconds=0) as client:
        for number in range(NUM_IDLE):
            await (await client.create_session("lstm", session_id=idle(number))).append("x")
        await asyncio.gather(*(stream.begin(client) for stream in streams))
        with stopped(server.engines()):  # no turn comes to its end before
            tasks = [asyncio.create_task(stream.read(client)) for stream in streams]
            await asyncio.gather(*(stream.has_begun.wait() for stream in streams))
            disk.fill(server.pid)
            await refused(client)
        await asyncio.gather(*(stream.has_all.wait() for stream in streams))
        assert not any(stream.is_finished for stream in streams)
        if then == "free":
            disk.free(server.pid)
        elif then == "leave":
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)
    return streams


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stop processes for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:  # or they would never see that their server is gone
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def go_on(server: ServerProcess, streams: list[Stream], expected: list[str]) -> None:
    """See that every turn comes to its end, with the text of an undisturbed run, and so does the next one."""

    async def rest(client: AsyncClient, stream: Stream) -> None:
        session = client.session(stream.name)
        again = session.generate(max_chars=LENGTH, request_id=stream.request_id)  # told again, and gone on with
        text = "".join([text async for text in again])
        assert text.startswith(stream.text)
        async for more in session.generate(max_chars=SHORT):
            text += more
        assert expected[stream.number][SHORT:] == text
        assert (await session.transcript()).text == PROMPT + expected[stream.number]

    async with AsyncClient(server.address, timeout=PATIENCE) as client:
        await asyncio.gather(*(rest(client, stream) for stream in streams))
        assert (await client.get_session(idle(0))).info.position == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("patience", [3600, 0])
def test_streams_outlast_a_full_disk(lstm, disk, expected, patience):
    """Streams go on until there is room again, or end as UNAVAILABLE, as the setting says; every session goes on."""
    flags = ("--store", f"sqlite:{disk.folder / 'sessions.db'}", "--store-patience-seconds", str(patience), *QUICK)
    with ServerProcess(lstm, *flags) as server:
        streams = asyncio.run(streams_meet_a_full_disk(server, disk, "free" if patience else "wait"))
        if patience:
            assert [(stream.error, stream.is_finished) for stream in streams] == [(None, True)] * NUM_STREAMS
        else:
            broken = {(stream.error.code, stream.error.reason) for stream in streams if stream.error is not None}
            assert broken == {("UNAVAILABLE", "STORE_UNAVAILABLE")}
            disk.free(server.pid)
        asyncio.run(go_on(server, streams, expected))


@pytest.mark.timeout(600)
def test_what_was_told_is_stored(lstm, disk, expected):
    """A server that is killed while the disk is full had told nothing that its file has not."""
    flags = ("--store", f"sqlite:{disk.folder / 'sessions.db'}", "--store-patience-seconds", "3600", *QUICK)
    with ServerProcess(lstm, *flags) as server:
        streams = asyncio.run(streams_meet_a_full_disk(server, disk, "leave"))
        server.kill()
    disk.free(0)
    with ServerProcess(lstm, *flags) as server:
        with Client(server.address, timeout=PATIENCE) as client:
            for stream in streams:
                session = client.session(stream.name)
                durable = session.cancel().position  # where the next server ends a turn that nobody goes on with
                assert durable >= stream.committed
                assert session.transcript().text == (PROMPT + expected[stream.number])[:durable]
        asyncio.run(go_on(server, streams, expected))
