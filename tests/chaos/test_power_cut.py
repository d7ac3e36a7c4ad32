"""(h) Power cuts and kills under SQLite: whatever the moment, the file opens and holds what was told to be durable.

A real server is watched by strace while it takes turns; then its file is put together again as it was between any two
writes: as a kill leaves it (all writes up to there) and as a power cut may (what was not synced is lost, or in part, or
torn). Nothing is sampled: every moment is looked at. And real servers are killed as they begin some of their writes.
"""

import asyncio
import math
import shutil
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from elman_client import InternalError, UnavailableError
from tests.chaos.disk import FILE, Write, cuts, killing, watching, writes_of
from tests.chaos.durable import NUM_SESSIONS, After, Told, work
from tests.models import tiny_model
from tests.server.house import House
from tests.server_process import ServerProcess
from tests.services import need

FLAGS: Final = ("--commit-chars", "40", "--commit-seconds", "0.05", "--lease-seconds", "0.2")
MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # nobody has to sync what lies there
# Each thread's writes are counted: one makes less than 30, before the server serves; then another takes over.
KILLS: Final = (2, 20, *range(30, 100, 10))


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
    told = [Told(number) for number in range(NUM_SESSIONS)]
    with _server(models, folder, watching(folder / "trace")) as server:
        assert asyncio.run(work(server.address, told)) == [None] * NUM_SESSIONS
        server.terminate()
        assert server.wait() == 0
    return list(writes_of(folder / "trace")), told


def _server(models: Path, folder: Path, launcher: list[str]) -> ServerProcess:
    return ServerProcess(models, "--store", f"sqlite:{folder / FILE}", *FLAGS, launcher=launcher)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["killed", "all unsynced lost", "some unsynced lost"])
async def test_between_any_two_writes_nothing_durable_is_lost(watched, models, kind):
    """Every file that a cut may leave opens, is sound, has what was told, and every session goes on as undisturbed."""
    writes, told = watched
    async with House([models / "tiny.onnx"]) as house:
        after = await After.of(house, NUM_SESSIONS)
        for moment, files in cuts(writes, kind):
            with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
                for name, data in files.items():
                    (Path(folder) / name).write_bytes(data)
                await after.check(Path(folder) / FILE, told, moment)
    assert after.num_checked > (100 if kind != "all unsynced lost" else 10)
    assert len(after.known) > 3 * NUM_SESSIONS  # there were sessions at many stages of their turns


@pytest.mark.timeout(600)
async def test_a_server_that_is_killed_at_a_write_loses_nothing_durable(models, tmp_path):
    """SIGKILL of a real server as it begins a write, at some of all its life: what it leaves is as good as above."""
    need("strace", is_there=shutil.which("strace") is not None)
    async with House([models / "tiny.onnx"]) as house:
        after = await After.of(house, NUM_SESSIONS)
        with ThreadPoolExecutor(2) as pool:  # a server takes longer to come up than to be killed
            for folder, told in pool.map(partial(_killed, models, tmp_path), KILLS):
                await after.check(folder / FILE, told, math.inf)
    assert after.num_checked == len(KILLS)
    assert len(after.known) > len(KILLS)


def _killed(models: Path, tmp_path: Path, number: int) -> tuple[Path, list[Told]]:
    """Let a server work until it is killed at a write; return where its file is, and what its clients were told."""
    folder, told = tmp_path / f"{number}", [Told(number) for number in range(NUM_SESSIONS)]
    folder.mkdir()
    try:
        server = _server(models, folder, killing(number))
    except AssertionError:  # it was killed before it served
        assert number < min(KILLS[2:])
        return folder, told
    with server:
        ends = asyncio.run(work(server.address, told, num_appends=1000))
        assert all(isinstance(end, UnavailableError | InternalError) for end in ends), ends
        assert server.wait() == -signal.SIGKILL
    return folder, told
