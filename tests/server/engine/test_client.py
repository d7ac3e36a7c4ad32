"""The engine's process: its rows, its readers, its death."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from elman_server.domain.errors import ArtefactError, EngineRestartedError, NotFiniteError, OverloadedError, QuotaError
from elman_server.domain.events import FinishReason
from elman_server.domain.requests import GenerateRequest, SamplingRequest, StoppingRequest, Target
from elman_server.domain.sampling import Sampling
from elman_server.engine import Configure, Engine, JobStream
from elman_server.engine.client import _environment
from elman_server.engine.job import IdDetail, Job, Output, pack
from elman_server.models.registry import ModelInfo
from tests.models import CHARACTERS, nan_model, tiny_model
from tests.server.house import PLAIN, House
from tests.server.reader import Reader

PROMPT = "What is the city but the people?\n"
IDS = [CHARACTERS.index(character) for character in PROMPT]
ENDLESS = StoppingRequest(max_chars=100_000)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def path(tmp_path_factory) -> Path:
    """The model that these engines serve."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.onnx", "gru", 1, 32, seed=3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(path) -> AsyncIterator[tuple[Engine, ModelInfo]]:
    """An engine with two rows."""
    engine = Engine(Configure(str(path), 2, 1, 0.002), 1000)
    model = await engine.start()
    yield engine, model
    await engine.stop()


def job(model: ModelInfo, max_chars: int, *, seed: int = 1, window: int = 1024) -> Job:
    """Return a job that reads PROMPT and samples."""
    return Job(model.initial, 0, IDS, max_chars, Sampling(seed=seed), window=window)


async def read(stream: JobStream) -> list[int]:
    """Read a stream to its end, as turns do."""
    ids: list[int] = []
    with stream:
        while True:
            output = await stream.next()
            ids += output.ids
            if output.finished is not None:
                assert output.finished is FinishReason.MAX_CHARS
                return ids
            stream.allow(len(output.ids))


def waiting(stream: JobStream) -> int:
    """Return how many characters lie in front of a reader."""
    return sum(len(output.ids) for output in stream._outputs if isinstance(output, Output))


async def kill(engine: Engine) -> None:
    """Kill an engine's process; return when the front has noticed, on a stream that it loses."""
    assert engine._process is not None
    stream = JobStream(engine, -1)
    engine._streams[-1] = stream
    os.kill(engine._process.pid, signal.SIGKILL)
    with pytest.raises(EngineRestartedError):
        await stream.next()


# Batch


async def test_more_streams_than_rows_all_finish(small):
    """With two rows thirty streams take turns, and none has another text for it."""
    engine, model = small
    alone = [await read(engine.open(job(model, 40, seed=seed))) for seed in range(5)]
    together = await asyncio.gather(*(read(engine.open(job(model, 40, seed=n % 5))) for n in range(30)))
    assert together == [alone[n % 5] for n in range(30)]


async def test_rows_are_shared_with_those_who_wait(small):
    """Four jobs that would hold the two rows for hours do not keep a short one waiting, nor change its text."""
    engine, model = small
    expected = await read(engine.open(job(model, 300)))
    with contextlib.ExitStack() as endless:
        for seed in range(4):
            endless.enter_context(engine.open(job(model, 10**9, seed=seed, window=10**9)))
        assert await read(engine.open(job(model, 300))) == expected


async def test_a_job_that_is_closed_frees_its_row(small):
    """A stream that leaves early makes room: two rows serve a hundred that are dropped, and then one that stays."""
    engine, model = small
    for number in range(100):
        with engine.open(job(model, 100_000, seed=number)) as stream:
            if number % 2:
                await stream.next()
    assert len(await read(engine.open(job(model, 50)))) == 50
    assert engine._streams == {}


async def test_a_slow_reader_stands_still_alone(small):
    """A reader that takes nothing is sent as much as its window holds; others continue, and it does when it reads."""
    engine, model = small
    expected = await read(engine.open(job(model, 600)))
    slow = [engine.open(job(model, 600, window=64)) for _ in range(2)]
    assert len(await read(engine.open(job(model, 3000, seed=2)))) == 3000
    assert [waiting(stream) for stream in slow] == [64, 64]
    assert [await read(stream) for stream in slow] == [expected, expected]


async def test_a_reader_that_is_behind_gets_longer_pieces(small):
    """Pieces that wait for a reader are joined up to a state; their details stay with them."""
    engine, model = small
    stream = JobStream(engine, -1)
    details = [pack([IdDetail(-float(number), [])]) for number in range(4)]
    stream.push(Output(-1, [1, 2], details[:2]))
    stream.push(Output(-1, [3], details[2:3], model.initial))
    stream.push(Output(-1, [4], details[3:]))
    stream.push(Output(-1, not_finite=True))
    assert await stream.next() == Output(-1, [1, 2, 3], details[:3], model.initial)
    assert await stream.next() == Output(-1, [4], details[3:])
    with pytest.raises(NotFiniteError):
        await stream.next()


@pytest.mark.parametrize("window", [1, 3, 256])
async def test_a_window_of_any_size_gives_the_same_text(small, window):
    """A pause leaves no trace in the text."""
    engine, model = small
    expected = await read(engine.open(job(model, 300)))
    assert await read(engine.open(job(model, 300, window=window))) == expected


async def test_too_many_streams_are_refused_at_once(path):
    """Past the limit OVERLOADED comes without waiting, and says when to come again; what must be done is done."""
    engine = Engine(Configure(str(path), 2, 1, 0.002), 3)
    model = await engine.start()
    try:
        streams = [engine.open(job(model, 100_000)) for _ in range(3)]
        with pytest.raises(OverloadedError) as refused:
            engine.open(job(model, 1))
        assert refused.value.retry_after > 0
        for stream in streams[:2]:
            engine.close(stream._id)
        assert len(await read(engine.open(job(model, 10), ignore_limit=True))) == 10
        engine.close(streams[2]._id)
        assert len(await read(engine.open(job(model, 10)))) == 10
    finally:
        await engine.stop()


# Numbers that are not


async def test_a_row_that_is_not_finite_ends_alone(tmp_path):
    """A NaN ends its own stream; twenty neighbours have the texts that they have without it."""
    quiet = SamplingRequest(seed=4, banned_characters="!")
    async with House([nan_model(tmp_path / "nan.onnx")]) as house:
        undisturbed = await house.generate(Target(model="nan"), PROMPT, 400, quiet)
        session = await house.session("nan")

        async def broken() -> None:
            """Sample until the third "!" in a row, again and again."""
            loud, target = SamplingRequest(allowed_characters="!"), Target(session=session.name)
            for number in range(10):
                with pytest.raises(NotFiniteError):
                    await house.generate(target, "a!" if number % 2 else "a", 100, loud)
                await house.at_rest(session.name)

        loud_one = asyncio.create_task(broken())
        texts = await asyncio.gather(*(house.generate(Target(model="nan"), PROMPT, 400, quiet) for _ in range(20)))
        await loud_one
        assert {text.text for text in texts} == {undisturbed.text}
        transcript = await house.sessions.transcript(session.name, 0, None)
        assert set(transcript.text) == {"a", "!"}
        assert "!!!!" not in transcript.text  # nothing was sampled after the third


async def test_a_prompt_that_is_not_finite_leaves_no_trace(tmp_path):
    """Found while the prompt is read, the session is as before."""
    async with House([nan_model(tmp_path / "nan.onnx")]) as house:
        session = await house.session("nan")
        for prompt in ("!!!", "a" * 200 + "!!!!" + "a" * 200):
            with pytest.raises(NotFiniteError):
                await house.generate(Target(session=session.name), prompt, 10)
        assert await house.at_rest(session.name) == session
        assert len((await house.generate(Target(session=session.name), "abc", 10, PLAIN)).text) > 0


# Death


async def test_a_killed_engine_ends_streams_and_harms_no_session(path):
    """SIGKILL: running streams end with UNAVAILABLE, the engine restarts, and every session continues bit for bit."""
    async with House([path]) as house:
        (engine,) = house.engines.values()
        expected = (await house.generate(Target(model="tiny"), PROMPT, 400)).text
        resting, running = await house.session("tiny"), await house.session("tiny")
        before = await house.generate(Target(session=resting.name), PROMPT, 100)
        request = GenerateRequest(Target(session=running.name), PROMPT, PLAIN, ENDLESS)
        reader = await Reader.of(house.turns, request)

        await kill(engine)
        with pytest.raises(EngineRestartedError):
            engine.open(job(house.models.get("tiny"), 1))
        with pytest.raises(EngineRestartedError):
            await reader.rest()
        delivered = reader.text.text
        assert delivered
        assert (await house.sessions.get(resting.name)).etag == before.end.etag

        await engine.wait_until_serving()
        after = await house.generate(Target(session=resting.name), "", 300)
        assert before.text + after.text == expected
        # What was delivered is read again by the new process, and committed.
        info = await house.at_rest(running.name)
        assert info.position == len(PROMPT) + len(delivered)
        rest = await house.generate(Target(session=running.name), "", 400)
        assert (delivered + rest.text)[:400] == expected
        transcript = await house.sessions.transcript(running.name, 0, None)
        assert transcript.text == PROMPT + delivered + rest.text


async def test_an_engine_comes_back_every_time(path):
    """Killed again and again it serves the same model again and again."""
    engine = Engine(Configure(str(path), 2, 1, 0.002), 10)
    model = await engine.start()
    try:
        expected = await read(engine.open(job(model, 30)))
        for _ in range(2):
            stream = engine.open(job(model, 100_000))
            await kill(engine)
            with pytest.raises(EngineRestartedError):
                await read(stream)
            await engine.wait_until_serving()
            assert await read(engine.open(job(model, 30))) == expected
    finally:
        await engine.stop()


async def test_stop_ends_the_process_and_its_streams(path):
    """Nothing is left behind: no process, and no reader that waits forever."""
    engine = Engine(Configure(str(path), 2, 1, 0.002), 10)
    model = await engine.start()
    assert engine._process is not None
    process, stream = engine._process, engine.open(job(model, 100_000, window=5))
    await engine.stop()
    assert process.returncode is not None
    with pytest.raises(EngineRestartedError):
        await read(stream)
    with pytest.raises(EngineRestartedError):
        engine.open(job(model, 1))


@pytest.mark.parametrize("content", [b"", b"garbage"])
async def test_a_model_that_cannot_be_honoured_stops_the_start(tmp_path, content):
    """The error message of the process reaches the front, and the process has ended."""
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(content)
    engine = Engine(Configure(str(bad), 2, 1, 0.002), 10)
    with pytest.raises(ArtefactError, match=r"does not end with elman.digest"):
        await engine.start()
    assert engine._process is None


async def test_a_batch_of_one_row_is_a_batch_of_one_row(path, small):
    """`max_batch` 1 is honoured: streams take turns on the one row, and their texts do not show it."""
    engine, model = small
    expected = [await read(engine.open(job(model, 200, seed=seed))) for seed in range(3)]
    narrow = Engine(Configure(str(path), 1, 1, 0.002), 10)
    await narrow.start()
    try:
        assert await asyncio.gather(*(read(narrow.open(job(model, 200, seed=n))) for n in range(3))) == expected
    finally:
        await narrow.stop()


async def test_an_engine_gets_no_keys(monkeypatch):
    """What is in the server's environment beside paths and libraries' settings is not the engine's business."""
    for name in ("ELMAN_STORE", "MY_KEYS", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = _environment()
    assert "secret" not in found.values()
    assert (found["PATH"], found["OMP_NUM_THREADS"]) == (os.environ["PATH"], "3")


async def test_long_prompts_that_wait_have_a_bound(small, monkeypatch):
    """Past it a long one is refused at once and a short one is not; a job that was not sent is taken back whole."""
    engine, model = small
    monkeypatch.setattr(engine, "_max_unread", 1000)
    monkeypatch.setattr(type(engine), "_is_behind", property(lambda _: True))
    long = Job(model.initial, 0, (IDS * 100)[:600], 1, Sampling(seed=1))
    with contextlib.ExitStack() as stack:
        stack.enter_context(engine.open(long))
        assert len(engine._admission._waiting) == 1
        with pytest.raises(QuotaError, match="unread characters"):
            engine.open(long)
        short = engine.open(job(model, 5))
    assert list(engine._unread) == []
    assert await read(short) == await read(engine.open(job(model, 5)))
