"""Long texts and large copies hold up nobody: the loop is free again after some milliseconds of computing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest_asyncio

from elman.v1.generation_pb2 import AppendResponse, ScoreResponse
from elman_server.domain.requests import AppendRequest, Detail, ScoreRequest, Target
from elman_server.grpc.messages.build import from_append, from_score
from elman_server.sessions.stores import SqliteStore
from tests.models import CHARACTERS, tiny_model
from tests.server.house import House

TEXT = (CHARACTERS * 500)[:30_000]
MAX_SECONDS = 0.4  # of CPU time of the thread of the loop; 100,000 characters took 1.5


@pytest_asyncio.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    """A house whose sessions are encoded."""
    model = tiny_model(tmp_path / "tiny.onnx", "gru", name="tiny")
    async with House([model], store=SqliteStore(tmp_path / "s.db", 1000)) as house:
        yield house


@contextlib.asynccontextmanager
async def free_loop() -> AsyncIterator[None]:
    """See that the loop is not held up while entered, in the processor's time: other processes do not count."""
    is_over, longest = asyncio.Event(), 0.0

    async def watch() -> None:
        nonlocal longest
        while not is_over.is_set():
            begin = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - begin)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    yield
    is_over.set()
    await watching
    assert longest < MAX_SECONDS


async def test_a_long_text_is_scored_in_pieces(house):
    """30,000 characters: the answer is whole."""
    scored = await house.turns.score(ScoreRequest(Target(model="tiny"), TEXT[:2000]))
    expected = [detail.log_probability for detail in scored]
    async with free_loop():
        details = await house.turns.score(ScoreRequest(Target(model="tiny"), TEXT))
        answer = await from_score(details)

    found = ScoreResponse.FromString(answer)
    assert (len(found.details), found.scored_count) == (30_000, 29_999)
    assert [detail.log_probability for detail in found.details[1:2000]] == expected[1:]


async def test_a_long_text_is_appended_in_pieces(house):
    """With details, to a session whose records are encoded; and forks of it are made so."""
    session = await house.session("tiny")
    async with free_loop():
        request = AppendRequest(session.name, TEXT, detail=Detail(log_probability=True))
        info, details = await house.turns.append(request)
        answer = AppendResponse.FromString(await from_append(info, details))
    assert (len(answer.details), answer.session.position) == (30_000, 30_000)

    async with free_loop():
        forks = await house.history.fork(session.name, position=None, count=20)
    assert {fork.state_digest for fork in forks} == {info.state_digest}
    async with free_loop():
        snapshot = await house.history.export(session.name)
        copy = await house.history.restore(snapshot, "copy")
    assert copy.state_digest == info.state_digest
