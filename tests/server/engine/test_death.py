"""An engine that has died, before its front has heard of it; on uvloop, as the server runs."""

import asyncio
import contextlib
import gc
import os
import signal
import warnings

import pytest
import uvloop

from elman_server.domain.errors import EngineRestartedError
from elman_server.domain.sampling import Sampling
from elman_server.engine import Configure, Engine
from elman_server.engine.job import Job
from tests.models import tiny_model
from tests.server_process import PATIENCE, wait_until_gone


@pytest.fixture
def configure(tmp_path) -> Configure:
    """A small engine."""
    return Configure(str(tiny_model(tmp_path / "tiny.onnx", "gru", 1, 32, seed=3)), 2, 1, 0.002)


async def _read_to_its_end(configure: Configure) -> None:
    engine = Engine(configure, 1000)
    model = await engine.start()
    with engine.open(Job(model.initial, 0, [1], 1_000_000, Sampling(seed=1))) as stream:
        _kill(engine)
        for _ in range(5):  # the loop comes to know of it step by step
            stream.allow(1)
            await asyncio.sleep(0)
        with contextlib.suppress(EngineRestartedError):
            while True:
                await stream.next()
    await engine.wait_until_serving()
    await engine.stop()


def _kill(engine: Engine) -> None:
    assert engine._process is not None
    os.kill(engine._process.pid, signal.SIGKILL)
    wait_until_gone([engine._process.pid])


def test_what_is_told_to_a_dead_engine_is_lost(configure):
    """A message to a dead engine raises nothing in the reader: its stream ends with the reason."""
    uvloop.run(_read_to_its_end(configure))


async def _stop_as_it_ends(configure: Configure) -> None:
    """Kill an engine and stop it at the moment when its front learns of that: a restart is about to begin."""
    engine = Engine(configure, 1000)
    await engine.start()
    process, stops = engine._process, list[asyncio.Task[None]]()
    assert process is not None
    ended = process.wait

    async def wait() -> int:
        code = await ended()
        if not stops:
            stops.append(asyncio.create_task(engine.stop()))
        return code

    process.wait = wait  # type: ignore[method-assign]
    _kill(engine)
    async with asyncio.timeout(PATIENCE):
        while not stops:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await stops[0]
    assert engine._process is None


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_stop_in_the_moment_of_a_death_is_a_stop(configure, run):
    """It does not wait forever for an engine that is started again, and leaves no process behind."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run(_stop_as_it_ends(configure))
        gc.collect()
    assert [str(warning.message) for warning in told] == []
