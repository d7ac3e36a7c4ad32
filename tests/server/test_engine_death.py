"""An engine that has died, before its front has heard of it; on uvloop, as the server runs."""

import asyncio
import contextlib
import os
import signal

import pytest
import uvloop

from elman_server.engine import Configure, Engine
from elman_server.errors import EngineRestartedError
from elman_server.generation import Job
from elman_server.sampling import Sampling
from tests.models import tiny_model
from tests.server_process import wait_until_gone


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
    """A reader that tells it something is not at fault: its stream says why it ends."""
    uvloop.run(_read_to_its_end(configure))
