"""The client's methods that show what a network computes, against real servers."""

import os
import signal

import pytest

from elman_client import (
    AsyncClient,
    Client,
    FailedPreconditionError,
    GenerateOptions,
    InvalidArgumentError,
    OutOfRangeError,
    Signal,
    StateChunk,
    TextProperty,
    UnimplementedError,
    Units,
)
from tests.e2e.wire import PATIENCE
from tests.server_process import ServerProcess

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
UNITS = [Units(Signal.C, 0, (0, 3)), Units(Signal.FORGET, 0)]


def rows(chunks: list[StateChunk]) -> list[list[float]]:
    """Return all values of each character of some chunks that follow one another."""
    assert [chunk.start for chunk in chunks[1:]] == [chunk.start + len(chunk.text) for chunk in chunks[:-1]]
    found = []
    for chunk in chunks:
        parts = [part.values.to_lists() for part in chunk.values]
        found += [[value for part in row for value in part] for row in zip(*parts, strict=True)]
    return found


async def test_both_clients_show_the_same(server_process: ServerProcess):
    """Watching, explaining and finding, blocking and asyncio, on a model and on a session that has read the text."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        session = client.create_session("lstm")
        session.append(TEXT)
        chunks = list(client.watch(TEXT, model="lstm", units=UNITS, num_changed=2))
        assert "".join(chunk.text for chunk in chunks) == TEXT
        assert [(part.signal, part.layer, len(part.units)) for part in chunks[0].values] == [
            (Signal.C, 0, 2),
            (Signal.FORGET, 0, 16),
        ]
        assert all(len(changes) == 2 for chunk in chunks for changes in chunk.changes)
        step = session.explain(position=20, num_candidates=2)
        found = session.find_units(text_property=TextProperty.LINE_POSITION, num_units=3)
        assert (step.text, len(step.layers[0].gates), len(found.units)) == (TEXT[20], 4, 3)
        assert step.candidates[0].logit == max(step.logits)

        async with AsyncClient(server_process.address, timeout=PATIENCE) as twin:
            other = twin.session(session.name)
            again = [chunk async for chunk in other.watch(units=UNITS)]
            assert rows(again) == rows(chunks)
            assert await other.explain(position=20, num_candidates=2) == step
            assert await twin.explain(TEXT[:21], model="lstm", num_candidates=2) == step
            assert (
                await twin.find_units(TEXT, model="lstm", text_property=TextProperty.LINE_POSITION, num_units=3)
                == found
            )
            assert await twin.describe_state("lstm") == client.describe_state("lstm")
            assert await twin.weights("gru") == client.weights("gru")
        assert chunks[0].to_dict()["values"][0]["values"]["data"][0] == rows(chunks)[0][:2]


def test_a_character_comes_with_what_it_was_sampled_from(server_process: ServerProcess):
    """At temperature 0.5 the effective distribution is sharper than the model's own, over the three that were kept."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        options = GenerateOptions(temperature=0.5, top_k=3, seed=1, max_chars=40)
        detailed: GenerateOptions = {**options, "top_n": 5, "effective": True}
        turn = client.generate("A", model="gru", **detailed)
        details = [d for event in turn.events() for d in getattr(event, "details", ())]
        again = client.generate("A", model="gru", **options)
        assert "".join(again) == "".join(detail.text for detail in details)
    assert len(details) == 40
    for detail in details:
        own = detail.effective
        assert own is not None
        assert (own.num_kept, len(own.top), len(detail.top)) == (3, 3, 5)
        assert [kept.text for kept in own.top] == [likely.text for likely in detail.top[:3]]
        assert own.top[0].log_probability > detail.top[0].log_probability


def test_bad_requests_name_what_is_wrong(server_process: ServerProcess):
    """Unknown units, ranges past the end and patterns that are none: each its own error, and the next call works."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        with pytest.raises(InvalidArgumentError, match=r"units\[0\].units"):
            list(client.watch(TEXT, model="lstm", units=[Units(Signal.H, 0, (16,))]))
        with pytest.raises(InvalidArgumentError, match="is 0, not a value of Signal"):
            list(client.watch(TEXT, model="lstm", units=[Units(Signal.UNSPECIFIED, 0)]))
        with pytest.raises(OutOfRangeError, match="valid range is 0 to"):
            list(client.watch(TEXT, model="lstm", units=UNITS, end=1000))
        with pytest.raises(InvalidArgumentError, match="pattern: is no regular expression"):
            client.find_units(TEXT, model="lstm", pattern="(?=a)")
        with pytest.raises(InvalidArgumentError, match="exactly one of"):
            client.find_units(TEXT, model="lstm")
        with pytest.raises(FailedPreconditionError, match="not known") as refused:
            client.weights("nan")
        assert refused.value.reason == "GATES_ABSENT"
        assert client.explain(TEXT, model="lstm").position == len(TEXT) - 1


def test_a_watch_continues_when_the_engine_dies(lstm):
    """Chunks are cut by chance, but after a loss the next one begins where the last one ended."""
    with ServerProcess(lstm) as server, Client(server.address, timeout=PATIENCE) as client:
        text, units = TEXT * 100, [Units(signal, 0) for signal in (Signal.H, Signal.C, Signal.INPUT, Signal.FORGET)]
        (engine,) = server.engines()
        chunks: list[StateChunk] = []
        for chunk in client.watch(text, model="lstm", units=units):
            if not chunks:
                os.kill(engine, signal.SIGKILL)
            chunks.append(chunk)
        assert "".join(chunk.text for chunk in chunks) == text
        found = rows(chunks)
        assert found[:500] == rows(list(client.watch(text[:500], model="lstm", units=units)))
        last = list(client.watch(text, model="lstm", units=units, start=len(text) - 20))
        assert found[-20:] == rows(last)


def test_a_server_can_leave_it_out(lstm):
    """With --inspection off every method is unimplemented, and the rest works."""
    with ServerProcess(lstm, "--inspection", "off") as server, Client(server.address, timeout=PATIENCE) as client:
        with pytest.raises(UnimplementedError):
            client.describe_state("lstm")
        with pytest.raises(UnimplementedError):
            list(client.watch(TEXT, model="lstm", units=UNITS))
        assert len("".join(client.generate("A", model="lstm", max_chars=3))) == 3
