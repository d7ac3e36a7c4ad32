"""Several engines of one model: jobs are spread, a dead engine gets none, no text shows which engine sampled it."""

import asyncio

import pytest

from elman_server.domain.errors import ArtefactError
from elman_server.engine import Configure, EnginePool
from tests.models import tiny_model
from tests.server.engine.test_client import job, kill, read


async def test_jobs_are_spread_and_texts_do_not_show_it(tmp_path):
    """Four jobs on two engines are two on each, and equal seeds give equal texts on both."""
    path = tiny_model(tmp_path / "tiny.onnx", "gru", 1, 32, seed=3)
    pool = EnginePool(Configure(str(path), 2, 1, 0.002, num_engines=2), 10)
    model = await pool.start()
    try:
        streams = [pool.open(job(model, 200, seed=seed)) for seed in (1, 1, 2, 2)]
        assert [engine.num_streams for engine in pool._engines] == [2, 2]
        first, again, other, other_again = await asyncio.gather(*map(read, streams))
        assert first == again != other == other_again
    finally:
        await pool.stop()


async def test_a_dead_engine_is_done_without(tmp_path):
    """While one engine is away jobs go to the other; when it is back it takes its share."""
    path = tiny_model(tmp_path / "tiny.onnx", "gru", 1, 32, seed=3)
    pool = EnginePool(Configure(str(path), 2, 1, 0.002, num_engines=2), 10)
    model = await pool.start()
    try:
        dead, alive = pool._engines
        expected = await read(pool.open(job(model, 50)))
        await kill(dead)
        stream = pool.open(job(model, 50))
        assert alive.num_streams == 1
        assert await read(stream) == expected
        await dead.wait_until_serving()
        assert await read(dead.open(job(model, 50))) == expected
    finally:
        await pool.stop()


async def test_a_model_that_cannot_be_honoured_stops_the_start(tmp_path):
    """One sentence says why, and no process is left."""
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"garbage")
    pool = EnginePool(Configure(str(bad), 2, 1, 0.002, num_engines=2), 10)
    with pytest.raises(ArtefactError, match=r"does not end with elman\.digest"):
        await pool.start()
    assert [engine._process for engine in pool._engines] == [None, None]
