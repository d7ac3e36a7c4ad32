import asyncio
import gc
import math
from contextlib import aclosing

import pytest

from elman_client import (
    AsyncClient,
    Chunk,
    Client,
    DeadlineExceededError,
    Event,
    FailedPreconditionError,
    Finished,
    FinishReason,
    Generation,
    InvalidArgumentError,
    OnAbort,
    ReplaceWith,
    SessionBusyError,
    Started,
    Usage,
)
from elman_client._shared.connection import Connection
from elman_client._shared.retrying import Attempts
from elman_client._shared.turn import Turn
from elman_client._shared.turns import Asked
from elman_client._sync.generation import TurnRun
from elman_client._sync.transport import Stream
from tests.client.fake_server import FakeServer


async def _joined(generation) -> str:
    return "".join([text async for text in generation])


async def test_text_streams_in_pieces(session):
    """Iterating yields the drawn text, and afterwards there is how it ended."""
    generation = session.generate("ROMEO:", max_chars=10)

    assert [text async for text in generation] == ["ghij", "klmn", "op"]
    assert generation.finished.finish_reason == FinishReason.MAX_CHARS
    assert generation.finished.usage == Usage(prompt_chars=6, generated_chars=10)
    assert generation.finished.position == 16
    assert (await session.refresh()).etag == generation.finished.etag
    assert [text async for text in generation] == []


async def test_events_tell_the_whole_turn(session):
    """Events are Started, Chunks with details, and Finished."""
    generation = session.generate("a", max_chars=4, log_probability=True, chunk_chars=2, seed=3)

    events = [event async for event in generation.events()]

    assert [type(event) for event in events] == [Started, Chunk, Chunk, Finished]
    assert events[0] == generation.started
    assert events[0].sampling.seed == 3
    assert events[0].sampling.temperature is None
    assert [(d.text, d.log_probability) for d in events[1].details] == [("b", -0.5), ("c", -0.5)]
    assert events[-1] == generation.finished


async def test_a_model_generates_without_a_session(client):
    """One-shot text comes from a model's beginning and has no etag."""
    generation = client.generate("a", model="tiny", max_chars=3)

    assert await _joined(generation) == "bcd"
    assert generation.finished.etag == ""


async def test_every_parameter_reaches_the_server(session):
    """What the server says it draws with is what was asked for."""
    generation = session.generate(
        "a",
        temperature=0.8,
        top_k=5,
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.5,
        repetition_window=32,
        logit_bias={"a": 1.5, "b": -2.0},
        allowed_characters="abc",
        banned_characters="d",
        seed=2**64 - 1,
        max_chars=4,
        stop_strings="d",
        include_stop=False,
        etag="etag-0-0",
        on_abort=OnAbort.ROLLBACK,
        log_probability=True,
        top_n=2,
        unknown_characters=ReplaceWith("?"),
        chunk_chars=1,
        timeout=60,
    )

    assert await _joined(generation) == "bc"
    assert generation.finished.stop_string == "d"
    sampling = generation.started.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.8, 5, 0.9)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.5)
    assert (sampling.repetition_window, sampling.seed) == (32, 2**64 - 1)
    assert sampling.logit_bias == {"a": 1.5, "b": -2.0}
    assert (sampling.allowed_characters, sampling.banned_characters) == ("abc", "d")


async def test_none_is_as_good_as_left_out(session):
    """An argument that is None is not sent."""
    generation = session.generate("a", max_chars=2, temperature=None, stop_strings=None, seed=None)

    assert await _joined(generation) == "bc"
    assert generation.started.sampling.seed == 7


def test_arguments_are_checked_before_anything_is_sent(client, server):
    """Wrong names, types and values fail at the call, not at the first piece."""
    session = client.session("mine")
    with pytest.raises(TypeError, match="no argument temprature"):
        session.generate("a", temprature=1)
    with pytest.raises(TypeError, match="temperature is a number, not str"):
        session.generate("a", temperature="hot")
    with pytest.raises(TypeError, match="top_k is an int, not bool"):
        session.generate("a", top_k=True)
    with pytest.raises(InvalidArgumentError, match="max_chars"):
        session.generate("a", max_chars=2**63)
    with pytest.raises(InvalidArgumentError, match="on_abort"):
        session.generate("a", on_abort="FORGET")
    assert server.servicer.headers == []


async def test_the_ends_are_not_there_before_they_come(session):
    """Asking how a turn began or ended before it did is an error that says what to do."""
    generation = session.generate("a")
    with pytest.raises(FailedPreconditionError, match="has not started"):
        _ = generation.started
    with pytest.raises(FailedPreconditionError, match="has not finished"):
        _ = generation.finished


async def test_closing_frees_the_session_for_the_next_turn(session, server):
    """After closing, the next turn waits until the server has settled the last one."""
    server.servicer.seconds_to_settle = 0.3
    async with session.generate("a") as generation:
        first = await anext(generation)

    assert await _joined(session.generate("b", max_chars=1)) != ""
    assert (await session.transcript()).text.startswith("a" + first)
    assert [text async for text in generation] == []


async def test_everything_after_closing_sees_the_settled_session(session, server):
    """Whatever is asked of the session after closing, it has the abandoned turn's text."""
    server.servicer.seconds_to_settle = 0.3
    generation = session.generate("a")
    first = await anext(generation)
    await generation.aclose()

    assert (await session.transcript()).text.startswith("a" + first)


async def test_breaking_pauses_and_forgetting_cancels(session, server):
    """A break keeps the turn open to go on; the forgotten object frees the session."""
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("a")
    async for text in generation:
        assert text == "bcde"
        break
    assert await anext(generation) == "fghi"
    del generation
    gc.collect()

    assert await _joined(session.generate("!", max_chars=1)) != ""


async def test_closing_before_reading_sends_nothing(session, server):
    """A turn that was never read from never was."""
    num_before = len(server.servicer.headers)
    generation = session.generate("a")
    await generation.aclose()

    assert [text async for text in generation] == []
    assert len(server.servicer.headers) == num_before


async def test_closing_from_elsewhere_ends_the_iteration(session, server):
    """Who waits for the next piece when another closes the turn gets the end, not an error."""
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("a")
    await anext(generation)
    reader = asyncio.create_task(_joined(generation))
    await asyncio.sleep(0)
    server.servicer.seconds_per_chunk = 60
    await generation.aclose()

    assert isinstance(await asyncio.wait_for(reader, 10), str)


async def test_cancel_ends_the_turn_with_its_reason(session, client, server):
    """Anybody may cancel; the reader gets the end and the canceller the session at rest."""
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("a")
    await anext(generation)

    info = await client.session("mine").cancel()

    await _joined(generation)
    assert generation.finished.finish_reason == FinishReason.CANCELLED
    assert info.position == generation.finished.position


async def test_another_turn_at_once_is_refused_and_harms_nothing(session, client, server):
    """A second turn on a busy session fails; it does not cancel the first one."""
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("a", max_chars=40)
    await anext(generation)

    for other in (session, client.session("mine")):
        for _ in range(2):
            with pytest.raises(SessionBusyError) as caught:
                await _joined(other.generate("b"))
            assert caught.value.retry_after == 0.1

    await _joined(generation)
    assert generation.finished.finish_reason == FinishReason.MAX_CHARS


async def test_a_timeout_ends_the_turn_and_frees_the_session(session, server):
    """A turn that takes too long fails, and the next one may follow at once."""
    server.servicer.seconds_per_chunk = 60
    server.servicer.seconds_to_settle = 0.2
    with pytest.raises(DeadlineExceededError, match="longer timeout") as caught:
        await _joined(session.generate("a", timeout=0.1))
    assert caught.value.code == "DEADLINE_EXCEEDED"

    server.servicer.seconds_per_chunk = 0
    assert await _joined(session.generate("b", max_chars=1)) != ""


async def test_the_clients_timeout_is_every_calls_default(connect, server):
    """A call that brings no timeout takes the client's; infinity means none."""
    server.servicer.seconds_per_chunk = 0.2
    async with connect(server.target, timeout=0.1) as client:
        with pytest.raises(DeadlineExceededError):
            await _joined(client.generate("a", model="tiny", max_chars=4))
        patient = client.generate("a", model="tiny", max_chars=4, timeout=math.inf)
        assert await _joined(patient) == "bcde"


async def test_a_cancelled_task_is_a_cancelled_turn(server):
    """Cancelling a task that reads raises CancelledError and frees the session."""
    server.servicer.seconds_per_chunk = 0.01
    async with AsyncClient(server.target) as client:
        session = await client.create_session("tiny")
        generation = session.generate("a")
        await anext(generation)
        server.servicer.seconds_per_chunk = 60
        reader = asyncio.create_task(_joined(generation))
        await asyncio.sleep(0.05)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

        server.servicer.seconds_per_chunk = 0
        assert await _joined(session.generate("b", max_chars=1)) != ""


async def test_events_can_be_closed_by_the_standard_library(server):
    """The asyncio generation works with aclosing()."""
    async with AsyncClient(server.target) as client, aclosing(client.generate("a", model="tiny")) as generation:
        assert await anext(generation) == "bcde"


def test_threads_share_a_client(server: FakeServer):
    """Blocking generations of one client run side by side."""
    with Client(server.target) as client:
        generations = [client.generate("a", model="tiny", max_chars=8) for _ in range(8)]
        firsts = [next(generation) for generation in generations]
        assert firsts == ["bcde"] * 8
        assert ["".join(generation) for generation in generations] == ["fghi"] * 8


def test_an_interrupted_opening_is_an_abandoned_turn():
    """Ctrl-C while the call is being made counts as leaving: the server may have got it."""
    left = []
    connection = Connection(
        "x", tls=False, root_certificates=None, credentials=None, metadata=None, timeout=None, retry_seconds=1
    )
    turn = Turn(Asked("a", {}, session="sessions/abcd"), Attempts(connection, None, is_safe=True))

    def interrupted() -> Stream[tuple[Event, ...]]:
        turn.operation()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(Generation(TurnRun(turn, interrupted, lambda turn, _stream: left.append(turn.position))))

    assert left == [None]
