"""Sessions that outlive their server, and a server that outlives its store."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elman_client import Client
from tests.e2e.wire import PATIENCE, PROMPT, Refusal, held, reference, refused, wire_to
from tests.redis_process import RedisProcess, need_program
from tests.server_process import ServerProcess


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisProcess]:
    """A Redis that writes down each command before it answers."""
    need_program("redis-server")
    folder: Path = tmp_path / "redis"
    folder.mkdir()
    with RedisProcess(folder, "--appendonly", "yes", "--appendfsync", "always") as process:
        yield process


@pytest.fixture(scope="module")
def lstm(models, tmp_path_factory) -> Path:
    """A directory of one model: servers of it start sooner."""
    folder: Path = tmp_path_factory.mktemp("lstm")
    shutil.copy(models / "lstm.onnx", folder)
    return folder


@pytest.fixture(params=["sqlite", "redis"])
def store(request, tmp_path) -> str:
    """A lasting store, as `--store` takes it."""
    return f"sqlite:{tmp_path / 'sessions.db'}" if request.param == "sqlite" else request.getfixturevalue("redis").url


def whole(client: Client, name: str, seeds: list[int]) -> str:
    """Let a session write a line for each seed; return what it wrote."""
    session = client.session(name)
    return "".join("".join(session.generate(PROMPT, seed=seed, max_chars=100, timeout=PATIENCE)) for seed in seeds)


def test_a_session_outlives_its_server(lstm, store):
    """After SIGKILL the next server goes on where the last turn ended, as if nothing had happened."""
    with ServerProcess(lstm, "--store", store) as process, Client(process.address) as client:
        client.create_session("lstm", session_id="undisturbed")
        expected = whole(client, "undisturbed", [1, 2])
        client.create_session("lstm", session_id="disturbed")
        text = whole(client, "disturbed", [1])
        process.kill()
    with ServerProcess(lstm, "--store", store) as process, Client(process.address) as client:
        text += whole(client, "disturbed", [2])
        assert text == expected
        transcripts = [client.session(name).transcript() for name in ("disturbed", "undisturbed")]
        assert transcripts[0].text == transcripts[1].text
        assert [info.name for info in client.list_sessions()] == ["sessions/disturbed", "sessions/undisturbed"]


@pytest.mark.parametrize("away", ["killed", "stopped"])
def test_a_server_outlives_its_store(lstm, redis, away):
    """While Redis is gone or hangs calls fail as UNAVAILABLE, with a time to retry; afterwards everything is there."""
    with (
        ServerProcess(lstm, "--store", redis.url, "--store-timeout-seconds", "0.3") as process,
        Client(process.address) as client,
        wire_to(process.address) as wire,
    ):
        client.create_session("lstm", session_id="abcd")
        before = whole(client, "abcd", [1])
        leave, come_back = _ways(redis, away)
        leave()
        unavailable = Refusal("UNAVAILABLE", "STORE_UNAVAILABLE", retry=True)
        for _ in range(3):
            assert refused(wire.session, "lstm") == unavailable
            assert refused(wire.generate, held("sessions/abcd")) == unavailable
        assert reference(client, model="lstm") == reference(client, model="lstm")  # which needs no store
        come_back()
        assert client.session("abcd").transcript().text == PROMPT + before
        assert len(whole(client, "abcd", [2])) == 100
        assert process.health() == "SERVING"


def _ways(redis: RedisProcess, away: str) -> tuple[Callable[[], None], Callable[[], None]]:
    if away == "killed":
        return redis.kill, redis.start
    return lambda: os.kill(redis.pid, signal.SIGSTOP), lambda: os.kill(redis.pid, signal.SIGCONT)
