"""Engines with two threads: one text for one seed, however many sessions sample it at once."""

import asyncio

from structlog.testing import capture_logs

from elman_server.domain.requests import SamplingRequest, Target
from tests.operators import operator_model, soft_model
from tests.server.house import house_of

SAMPLING = SamplingRequest(seed=7, temperature=1.0)
MAX_CHARS = 150


async def _texts(house, model: str, num_sessions: int) -> list[tuple[str, str]]:
    """Sample one text in as many sessions; return each one's text and the digest of its state."""
    turns = (house.generate(Target(model=model), "abc", MAX_CHARS, SAMPLING) for _ in range(num_sessions))
    return [(text.text, text.end.state_digest) for text in await asyncio.gather(*turns)]


async def test_17_sessions_of_one_seed_draw_one_text(tmp_path):
    """Softplus of 1,024 units, two threads asked for: 17 sessions once got 4 to 8 texts; it runs with one."""
    soft_model(tmp_path / "soft.onnx")
    with capture_logs() as logs:
        async with house_of(tmp_path / "soft.onnx", num_threads=2) as house:
            alone = await _texts(house, "soft", 1)
            assert len(alone[0][0]) == MAX_CHARS
            for num_sessions in (16, 17, 18):
                assert await _texts(house, "soft", num_sessions) == alone * num_sessions
    (warning,) = [log for log in logs if log["event"] == "engine_uses_fewer_threads"]
    assert (warning["model"], warning["threads"], warning["reason"][:8]) == ("soft", 1, "Softplus")


async def test_a_model_that_two_threads_cannot_prove_is_served_with_one(tmp_path):
    """A mean over 33 numbers: the engine starts again with one thread, computes four rows for each, and says both."""
    operator_model(tmp_path / "rms.onnx", "RMSNorm", 33)
    with capture_logs() as logs:
        async with house_of(tmp_path / "rms.onnx", num_threads=2) as house:
            alone = await _texts(house, "rms", 1)
            assert await _texts(house, "rms", 17) == alone * 17
    events = {log["event"]: log for log in logs}
    assert "with 2 threads" in events["engine_tries_one_thread"]["reason"]
    assert events["engine_ready"]["threads"] == 1
    assert events["engine_computes_more_rows"]["for_each"] == 4


async def test_elu_of_1000_units_is_served(tmp_path):
    """It was traced, and the whole server refused to start over it."""
    operator_model(tmp_path / "elu.onnx", "Elu", 1000)
    async with house_of(tmp_path / "elu.onnx", num_threads=2) as house:
        alone = await _texts(house, "elu", 1)
        assert await _texts(house, "elu", 7) == alone * 7
