"""The client's methods that show what a network computes, against real servers."""

import json
import os
import re
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
from tests.client.processes import Terminal, run
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


def test_watch_prints_a_table_and_colours(server_process: ServerProcess):
    """In a pipe a column for each unit; on a terminal one unit colours the text, and several are cells below it."""
    target = server_process.address
    table = run(target, "watch", "--text", "To be\n", "--unit", "c0.3", "--unit", "h0[1]", "--model", "lstm").stdout
    head, *lines = table.splitlines()
    assert head == "position\tcharacter\tc0.3\th0.1"
    assert [line.split("\t")[1] for line in lines] == ["T", "o", " ", "b", "e", "\\n"]
    with Client(target, timeout=PATIENCE) as client:
        found = rows(
            list(client.watch("To be\n", model="lstm", units=[Units(Signal.C, 0, (3,)), Units(Signal.H, 0, (1,))]))
        )
    assert [[float(cell) for cell in line.split("\t")[2:]] for line in lines] == [
        pytest.approx(row, rel=1e-4) for row in found
    ]
    as_json = run(target, "watch", "--text", "To", "--unit", "h0.1", "--model", "lstm", "--json").stdout.splitlines()
    assert json.loads(as_json[1]) == {"position": 1, "text": "o", "units": {"h0.1": pytest.approx(found[1][1])}}

    arguments = ("watch", "--text", "To be", "--model", "lstm")
    with Terminal(target, *arguments, "--unit", "h0.1", COLORTERM="truecolor") as terminal:
        terminal.expect(r"\x1b\[(30|97);48;2;\d+;\d+;\d+mT\x1b\[0m")
        assert terminal.wait() == 0
    with Terminal(target, *arguments, "--unit", "h0.1", "--unit", "h0.2", "--unit", "forget0.3") as terminal:
        terminal.expect(r"To be\r\n(\x1b\[38;5;\d+;48;5;\d+m▀\x1b\[0m){5}\r\n(\x1b\[38;5;\d+m▀\x1b\[0m){5}")
        assert terminal.wait() == 0


def test_explain_and_units_print_what_the_client_returns(server_process: ServerProcess, tmp_path):
    """The terms of a step with its next characters, and units in the order of their correlation."""
    target = server_process.address
    shown = run(target, "explain", "hello", "--model", "elman", "--units", "2").stdout
    assert shown.startswith("the step that reads 'o' at position 4\n\nlayer 0: 128 units, h = tanh(sum)\n")
    with Client(target, timeout=PATIENCE) as client:
        step = client.explain("hello", model="elman")
        text = TEXT * 2
        found = client.find_units(text, model="lstm", pattern="[a-z]+", num_units=2)
    assert f"{step.candidates[0].text!r}" in shown
    assert f"{step.candidates[0].probability:.4f}" in shown
    as_json = run(target, "explain", "hello", "--model", "elman", "--json").stdout
    assert json.loads(as_json) == step.to_dict()

    file = tmp_path / "text"
    file.write_text(text)
    lines = run(
        target, "units", str(file), "--model", "lstm", "--pattern", "[a-z]+", "--count", "2"
    ).stdout.splitlines()
    names = [f"{unit.signal.lower()}{unit.layer}.{unit.unit}" for unit in found.units]
    assert [line.split()[:2] for line in lines[1:]] == [
        [name, f"{unit.correlation:+.3f}"] for name, unit in zip(names, found.units, strict=True)
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("watch", "--text", "a", "--unit", "x0.1"), "'x0.1' is not a unit"),
        (("watch", "--text", "a", "--model", "lstm", "--unit", "h0.99"), "--unit is 99; allowed is from 0 to 15"),
        (("watch", "--unit", "h0"), "give --text, or choose --session"),
        (("explain", "a", "--model", "lstm", "--session", "s"), "--model and --session exclude each other"),
        (("units", "-", "--model", "lstm"), "choose one of --pattern and --property"),
        (("units", "-", "--model", "lstm", "--pattern", "("), "--pattern is no regular expression"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(server_process: ServerProcess, arguments, says):
    """One line on standard error, and nothing on standard output."""
    done = run(server_process.address, *arguments, stdin="some text")
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_surprise_colours_the_text_and_changes_nothing(server_process: ServerProcess):
    """On a terminal each character has its colour; in a pipe the text is plain, and the same."""
    options = ("--colour", "surprise", "--model", "gru", "--seed", "3", "--max-chars", "5", "--no-echo")
    plain = run(server_process.address, "generate", "To", *options).stdout
    assert len(plain) == 5
    with Terminal(server_process.address, "generate", "To", *options) as terminal:
        assert terminal.wait() == 0
        painted = re.findall(r"\x1b\[(?:30|97);48;5;\d+m(.)\x1b\[0m", terminal.output)
    assert painted == [character for character in plain if character != "\n"]
