"""What an engine process may do wrong, and what the server makes of it."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from elman_server.domain.errors import ArtefactError, EngineRestartedError
from elman_server.domain.sampling import Sampling
from elman_server.engine import Configure, Engine, EnginePool, protocol
from elman_server.engine import client as module
from elman_server.engine.client import EngineStatus
from elman_server.engine.job import Job
from tests.models import endless_model, tiny_model
from tests.server_process import PATIENCE, children, wait_until_gone

LOADING_SECONDS = 2  # after which an engine is within its model's step; sooner the test shows less, but does not fail


@pytest.fixture
def configure(tmp_path) -> Configure:
    """A small engine."""
    return Configure(str(tiny_model(tmp_path / "tiny.onnx", "gru", 1, 32, seed=3)), 2, 1, 0.002)


@pytest.fixture
async def engine(configure) -> AsyncIterator[Engine]:
    """That engine, serving."""
    engine = Engine(configure, 1000)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """The log's events."""
    with capture_logs() as events:
        yield events


@pytest.fixture
def quick_beats(monkeypatch) -> None:
    """Beats that tests need not wait for."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.5)


def events(log: list[Any], level: str) -> list[str]:
    """Return the events of a level."""
    return [event["event"] for event in log if event["log_level"] == level]


async def lost(engine: Engine) -> None:
    """Wait until the engine loses a stream, and with it its process."""
    assert engine._model is not None
    with engine.open(Job(engine._model.initial, 0, [1], 10**9, Sampling(seed=1))) as stream:
        try:
            while True:
                stream.allow(len((await asyncio.wait_for(stream.next(), PATIENCE)).ids))
        except EngineRestartedError:
            return


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_engine_that_is_killed_while_it_loads_is_one_sentence(configure):
    """The start fails with the file and the cause, whatever the socket says of it."""
    engine = Engine(configure, 10)
    starting = asyncio.create_task(engine.start())
    await until(lambda: engine._process is not None)
    assert engine._process is not None
    os.kill(engine._process.pid, signal.SIGKILL)
    with pytest.raises(ArtefactError, match=r"tiny.onnx: the engine died while it loaded the model \(signal 9\)"):
        await starting
    assert engine._process is None


@pytest.mark.usefixtures("quick_beats")
async def test_an_engine_that_hangs_is_replaced(engine, log):
    """SIGSTOP: silent for some beats it is killed, its stream ends UNAVAILABLE, and another one serves."""
    pid = engine._process.pid
    os.kill(pid, signal.SIGSTOP)
    await lost(engine)
    await asyncio.wait_for(engine.wait_until_serving(), PATIENCE)
    assert engine._process.pid != pid
    wait_until_gone([pid])
    assert "engine_hangs" in events(log, "error")


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
async def test_an_engine_answers_a_ping(engine, is_busy, monkeypatch):
    """Idle or in the middle of a stream it is not silent."""
    job = Job(engine._model.initial, 0, [1], 10**9, Sampling(seed=1), window=10**9)
    with engine.open(job) if is_busy else contextlib.nullcontext():
        received = list[type]()
        receive = protocol.receive

        async def noted(reader: asyncio.StreamReader) -> protocol.FromEngine:
            message = await receive(reader)
            received.append(type(message))
            return message

        monkeypatch.setattr(protocol, "receive", noted)
        engine.send(protocol.Ping())
        engine.send(protocol.Ping())  # the answer to the first is awaited already
        await until(lambda: protocol.Pong in received)


async def test_an_unforeseen_error_of_the_supervisor_is_logged_and_survived(engine, log):
    """Whatever is wrong with an output, its streams end, the log has the traceback, and another engine serves."""
    dispatch, broken = engine._dispatch, ZeroDivisionError("unforeseen")

    def fail(_: object) -> None:
        engine._dispatch = dispatch
        raise broken

    engine._dispatch = fail
    await lost(engine)
    await asyncio.wait_for(engine.wait_until_serving(), PATIENCE)
    assert [event["event"] for event in log if event.get("exc_info")] == ["engine_lost"]


async def test_an_engine_that_computes_otherwise_does_not_serve(engine, log):
    """An engine that is started again has the digest and the fingerprint of the first, or the next one is tried."""
    model = engine._model
    engine._model = dataclasses.replace(model, fingerprint="another")
    os.kill(engine._process.pid, signal.SIGKILL)
    await until(lambda: engine.status is EngineStatus.FAILED)
    with pytest.raises(EngineRestartedError):
        engine.open(Job(model.initial, 0, [1], 1))
    assert "engine_loaded_another_model" in events(log, "error")
    engine._model = model
    await asyncio.wait_for(engine.wait_until_serving(), PATIENCE)


async def test_a_model_whose_engine_cannot_come_back_is_not_well(configure, log):
    """While the file cannot be loaded again the pool reports it, and each watcher receives every change."""
    changes = list[bool]()
    pool = EnginePool(configure, 10, lambda: changes.append(pool.is_well))
    await pool.start()
    (engine,), path = pool._engines, Path(configure.path)
    assert engine._process is not None
    away = path.rename(path.with_suffix(".away"))  # noqa: ASYNC240  a test may block
    os.kill(engine._process.pid, signal.SIGKILL)
    await until(lambda: not pool.is_well)
    assert "engine_failed_to_start" in events(log, "error")
    away.rename(path)
    await until(lambda: pool.is_well and engine.status is EngineStatus.SERVING)
    assert changes[-1]
    assert not all(changes)
    await pool.stop()


async def test_loading_has_a_limit_of_time(tmp_path):
    """A model whose self-test never ends is refused, and its process is ended."""
    path = endless_model(tmp_path / "endless.onnx")
    before = children(os.getpid())
    with pytest.raises(ArtefactError, match=r"endless.onnx: the engine did not load the model within 2 s"):
        await Engine(Configure(str(path), 2, 1, 0.002, load_seconds=2), 10).start()
    assert children(os.getpid()) == before


async def test_loading_has_a_limit_of_memory(tmp_path):
    """A model that asks for ever more memory while it loads is refused before the machine suffers."""
    path = endless_model(tmp_path / "endless.onnx", grows=True)
    with pytest.raises(ArtefactError, match=r"endless.onnx: needs more than \d+ MiB of memory"):
        await Engine(Configure(str(path), 2, 1, 0.002, load_bytes=1 << 30), 10).start()


async def test_a_stop_ends_an_engine_that_loads(tmp_path):
    """A start that is cancelled leaves no process, even if that never looks at its socket."""
    engine = Engine(Configure(str(endless_model(tmp_path / "endless.onnx")), 2, 1, 0.002), 10)
    starting = asyncio.create_task(engine.start())
    await until(lambda: engine._writer is not None)
    assert engine._process is not None
    pid = engine._process.pid
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await engine.stop()
    wait_until_gone([pid])


def test_an_engine_dies_with_its_server(tmp_path):
    """SIGKILL of the server ends an engine within a call that never returns."""
    path = endless_model(tmp_path / "endless.onnx")
    code = f"""
import asyncio
from elman_server.engine import Configure, Engine
async def main():
    engine = Engine(Configure({str(path)!r}, 2, 1, 0.002), 10)
    starting = asyncio.create_task(engine.start())
    while engine._writer is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep({LOADING_SECONDS})
    print(engine._process.pid, flush=True)
    await starting
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        engine = int(server.stdout.readline())
        server.kill()
        wait_until_gone([engine])


async def test_what_an_engine_writes_is_in_the_log(configure, log, monkeypatch):
    """Lines that libraries or Python write to standard error are events of the server's log."""
    monkeypatch.setenv("PYTHONWARNINGS", "nonsense")
    engine = Engine(configure, 10)
    await engine.start()
    assert "engine_output" in events(log, "warning")
    await engine.stop()
