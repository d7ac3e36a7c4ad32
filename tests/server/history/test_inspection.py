"""Inspection over real engines: states, gates, terms and units are those of the equations, in NumPy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from elman_server.domain.errors import (
    GatesAbsentError,
    InvalidFieldError,
    PositionOutOfRangeError,
    QuotaError,
    UnknownCharacterError,
)
from elman_server.domain.inspection import (
    ExplainedStep,
    ExplainRequest,
    FindRequest,
    Signal,
    Source,
    StateChunk,
    TextProperty,
    Units,
    WatchRequest,
)
from elman_server.domain.requests import AppendRequest, Target
from elman_server.domain.vocabulary import REJECT, Unknown
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.history import inspection as module
from elman_server.history.inspection import Inspection
from elman_server.models.artefact import read_artefact
from tests.equations import Terms, activations, advanced, float_terms, int8_terms
from tests.models import CHARACTERS, nan_model, quantized_model, random_weights, tiny_model
from tests.server.house import House

TEXT = "The 'people' of\nRome, and\nthe 'other' one.\n"
CELLS = ["elman", "gru", "lstm"]
KINDS = [f"{cell}{kind}" for cell in CELLS for kind in ("", "-int8")]
GATE = {"hidden": Signal.H, **{signal.value: signal for signal in Signal if signal not in {Signal.H, Signal.C}}}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    """Networks of two layers of 16 units: three cells, in float32 and int8."""
    folder = tmp_path_factory.mktemp("models")
    found = {cell: tiny_model(folder / f"{cell}.onnx", cell, 2, seed=3, name=cell) for cell in CELLS}
    for cell in CELLS:
        found[f"{cell}-int8"] = quantized_model(folder / f"{cell}-int8.onnx", cell, 2, name=f"{cell}-int8")
    found["nan"] = nan_model(folder / "nan.onnx")
    found["bytes"] = tiny_model(folder / "bytes.onnx", seed=3, vocabulary=None, name="bytes")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(paths) -> AsyncIterator[House]:
    """A server of them all."""
    async with House(list(paths.values()), max_batch=8) as house:
        yield house


@pytest.fixture
def inspection(house) -> Inspection:
    """What shows their inside."""
    return Inspection(house.sessions, house.models, house.engines)


def of_model(name: str, text: str = TEXT, unknown: Unknown = REJECT) -> Source:
    """Return a text after a model's beginning."""
    return Source(Target(model=name), text, unknown)


async def watched(inspection: Inspection, request: WatchRequest) -> tuple[str, list[np.ndarray], list[StateChunk]]:
    """Return the text that was watched, the values of each of the units [T, U], and the chunks."""
    chunks = [chunk async for chunk in inspection.watch(request)]
    values = []
    for index, units in enumerate(chunks[0].units if chunks else ()):
        rows = [np.frombuffer(c.values[index], "<f4").reshape(len(c.text), len(units.units)) for c in chunks]
        values.append(np.concatenate(rows))
    return "".join(chunk.text for chunk in chunks), values, chunks


def walked(path: Path, text: str) -> list[np.ndarray]:
    """Return each state tensor [T, H] after every character, by stepping the graph alone."""
    runner = ModelRunner(read_artefact(path), capacity=1, num_threads=1)
    ids = np.array([[CHARACTERS.index(c)] for c in text])
    return [state[:, 0] for state in runner.walk(ids, runner.rows([runner.initial]))[1]]


def expected_terms(kind: str, path: Path, layer: int, below: Any, h: np.ndarray) -> Terms:
    """Return the terms of one step from the equations; `below`: an id for layer 0."""
    cell = kind.removesuffix("-int8")
    if kind != cell:
        return int8_terms(cell, path, layer, below, h)
    x = below.astype(np.float64) if layer else np.eye(len(CHARACTERS))[below]
    return float_terms(cell, random_weights(cell, 2, seed=3), layer, x, h.astype(np.float64))


@pytest.mark.parametrize("kind", KINDS)
async def test_states_and_gates_are_those_of_the_equations(inspection, paths, kind):
    """State tensors are the graph's, bit for bit; each gate is sigma or tanh of its sum, within 1e-6."""
    cell = kind.removesuffix("-int8")
    described = await inspection.describe(Target(model=kind))
    assert described.gates_absent == ""
    request = WatchRequest(of_model(kind), tuple(Units(info.signal, info.layer) for info in described.signals))
    text, values, _ = await watched(inspection, request)
    assert text == TEXT
    found = {(info.signal, info.layer): value for info, value in zip(described.signals, values, strict=True)}

    states = walked(paths[kind], TEXT)
    per_layer = len(states) // 2
    for layer in range(2):
        for index, signal in enumerate([Signal.H, Signal.C][:per_layer]):
            np.testing.assert_array_equal(found[signal, layer], states[layer * per_layer + index])
        for at in range(1, len(TEXT)):
            below = states[0][at] if layer else CHARACTERS.index(TEXT[at])
            terms = expected_terms(kind, paths[kind], layer, below, states[layer * per_layer][at - 1])
            for gate, value in activations(terms, is_int8=kind != cell).items():
                np.testing.assert_allclose(found[GATE[gate], layer][at], value, rtol=0, atol=1e-6)
    assert len(found) == 2 * (per_layer + (0 if cell == "elman" else len(terms)))


@pytest.mark.parametrize("kind", KINDS)
async def test_the_terms_of_a_step_are_those_of_the_equations(inspection, paths, kind):
    """Every term, the state after it, the logits and their softmax equal NumPy's within 1e-6."""
    cell = kind.removesuffix("-int8")
    request = ExplainRequest(of_model(kind), 20, temperature=0.7, num_candidates=3, num_contributions=16)
    step = await inspection.explain(request)
    assert (step.text, step.position, step.gates_absent) == (TEXT[20], 20, "")

    states = walked(paths[kind], TEXT[:21])
    per_layer = len(states) // 2
    for layer, shown in enumerate(step.layers):
        h = states[layer * per_layer][19]
        c = states[layer * per_layer + 1][19].astype(np.float64) if cell == "lstm" else None
        terms = expected_terms(kind, paths[kind], layer, states[0][20] if layer else CHARACTERS.index(TEXT[20]), h)
        for gate, (one, two, total) in zip(shown.gates, terms.values(), strict=True):
            inputs = np.array(gate.input) + (gate.bias or 0)
            recurrent = np.array(gate.recurrent) + (gate.recurrent_bias or 0)
            np.testing.assert_allclose(inputs, one, rtol=0, atol=1e-6)
            np.testing.assert_allclose(recurrent, two, rtol=0, atol=1e-6)
            np.testing.assert_allclose(gate.pre_activation, total, rtol=0, atol=1e-6)
        gates = activations(terms, is_int8=kind != cell)
        for gate, value in zip(shown.gates, gates.values(), strict=True):
            np.testing.assert_allclose(gate.activation, value, rtol=0, atol=1e-6)
        after, cell_after = advanced(gates, h.astype(np.float64), c, is_int8=kind != cell)
        np.testing.assert_array_equal(shown.h_before, h)
        np.testing.assert_allclose(shown.h, after, rtol=0, atol=1e-6)
        np.testing.assert_allclose(shown.h, states[layer * per_layer][20], rtol=0, atol=1e-6)
        if cell_after is not None:
            np.testing.assert_allclose(shown.c, cell_after, rtol=0, atol=1e-6)
            np.testing.assert_allclose(shown.c, states[layer * per_layer + 1][20], rtol=0, atol=1e-6)
    check_output(step)


def check_output(step: ExplainedStep) -> None:
    """Check that logits, probabilities and contributions follow from h."""
    logits = np.array(step.logits)
    likely = np.exp(logits / 0.7)
    np.testing.assert_allclose(step.probabilities, likely / likely.sum(), rtol=0, atol=1e-9)
    order = np.argsort(-logits)[:3]
    assert [candidate.id for candidate in step.candidates] == order.tolist()
    for candidate in step.candidates:
        parts = [c.activation * c.weight for c in candidate.contributions]
        assert len(parts) == 16
        assert [abs(part) for part in parts] == sorted(map(abs, parts), reverse=True)
        assert candidate.bias + sum(parts) == pytest.approx(logits[candidate.id], abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_weights_give_the_same_terms(inspection, kind):
    """GetWeights returns the matrices whose products the terms are; of int8 what the integers stand for."""
    weights = await inspection.weights(Target(model=kind))
    step = await inspection.explain(ExplainRequest(of_model(kind)))
    assert weights.output_weight.num_rows == len(CHARACTERS)
    for layer, shown in zip(weights.layers, step.layers, strict=True):
        for gate, terms in zip(layer, shown.gates, strict=True):
            assert gate.signal is terms.signal
            recurrent = np.frombuffer(gate.recurrent.data, "<f4").reshape(gate.recurrent.num_rows, -1)
            tolerance = 1e-5 if "int8" not in kind else 0.2  # there h is rounded before the product
            np.testing.assert_allclose(recurrent @ shown.h_before, terms.recurrent, rtol=0, atol=tolerance)
    first = weights.layers[0][0].input
    column = np.frombuffer(first.data, "<f4").reshape(first.num_rows, first.num_columns)[:, CHARACTERS.index(TEXT[-1])]
    np.testing.assert_allclose(column, step.layers[0].gates[0].input, rtol=0, atol=1e-5)


async def test_a_session_is_watched_at_any_range_and_does_not_change(house, inspection):
    """Ranges of the transcript, and a text after it, show what the whole shows; the pending character counts once."""
    session = await house.session("lstm")
    target = Target(session=session.name)
    for begin in range(0, len(TEXT), 10):
        await house.turns.append(AppendRequest(session.name, TEXT[begin : begin + 10]))
    before = await house.sessions.get(session.name)
    units = (Units(Signal.C, 1, (3, 0)), Units(Signal.FORGET, 0))
    _, whole, _ = await watched(inspection, WatchRequest(of_model("lstm", TEXT + "More"), units))

    for start, end in [(0, None), (13, 29), (len(TEXT) - 1, None), (10, 20)]:
        text, part, _ = await watched(inspection, WatchRequest(Source(target), units, start, end))
        assert text == TEXT[start:end]
        for values, expected in zip(part, whole, strict=True):
            np.testing.assert_allclose(values, expected[start : len(TEXT) if end is None else end], atol=1e-7)
    text, more, _ = await watched(inspection, WatchRequest(Source(target, "More"), units, 1))
    assert text == "ore"
    np.testing.assert_array_equal(more[0], whole[0][len(TEXT) + 1 :])
    step = await inspection.explain(ExplainRequest(Source(target)))
    assert (step.text, step.position) == (TEXT[-1], len(TEXT) - 1)
    assert await house.sessions.get(session.name) == before


async def test_the_units_that_changed_most_are_named(inspection, paths):
    """For each character the largest changes of h and c, by layer and unit, with the values before and after."""
    text, values, chunks = await watched(inspection, WatchRequest(of_model("lstm"), (), num_changed=4))
    assert (text, values) == (TEXT, [])
    states = walked(paths["lstm"], TEXT)
    names = [(signal, layer) for layer in range(2) for signal in (Signal.H, Signal.C)]
    for at, changes in enumerate(change for chunk in chunks for change in chunk.changes):
        before = [state[at - 1] if at else np.zeros(16) for state in states]
        moved = np.concatenate([np.abs(state[at] - old) for state, old in zip(states, before, strict=True)])
        assert [abs(c.after - c.before) for c in changes] == pytest.approx(np.sort(moved)[::-1][:4].tolist())
        for change in changes:
            tensor = names.index((change.signal, change.layer))
            assert change.after == states[tensor][at][change.unit]
            assert change.before == before[tensor][change.unit]


@pytest.mark.parametrize(
    ("labelling", "labels"),
    [
        ("'[^']*'", [int(c == "'" or i in range(5, 11) or i in range(31, 36)) for i, c in enumerate(TEXT)]),
        (TextProperty.LINE_START, [int(i > 0 and TEXT[i - 1] == "\n") for i in range(len(TEXT))]),
        (TextProperty.LINE_POSITION, [0 if c == "\n" else i - TEXT.rfind("\n", 0, i) for i, c in enumerate(TEXT)]),
        (TextProperty.INSIDE_WORD, [int(c.isalpha()) for c in TEXT]),
        (TextProperty.CAPITAL, [int(c.isupper()) for c in TEXT]),
        ((3, 5, 8), [int(i in {3, 5, 8}) for i in range(len(TEXT))]),
    ],
)
async def test_units_are_found_by_their_correlation(inspection, paths, labelling, labels):
    """The units come in the order of the correlation that NumPy computes, with means and counts."""
    found = await inspection.find(FindRequest(of_model("gru"), labelling, num_units=32))
    states = np.concatenate(walked(paths["gru"], TEXT), axis=1).astype(np.float64)
    y = np.array(labels, np.float64)
    if labelling is TextProperty.LINE_POSITION:
        y[: TEXT.index("\n")] = np.arange(1, TEXT.index("\n") + 1)
    expected = np.array([np.corrcoef(column, y)[0, 1] for column in states.T])
    assert (found.num_labelled, found.num_characters) == (np.count_nonzero(y), len(TEXT))
    assert len(found.units) == 32
    for unit in found.units:
        column = states[:, unit.layer * 16 + unit.unit]
        assert unit.correlation == pytest.approx(expected[unit.layer * 16 + unit.unit], abs=1e-9)
        assert unit.mean_labelled == pytest.approx(column[y != 0].mean(), abs=1e-9)
        assert unit.mean_other == pytest.approx(column[y == 0].mean(), abs=1e-9)
    sizes = [abs(unit.correlation) for unit in found.units]
    assert sizes == sorted(sizes, reverse=True)


async def test_the_bytes_of_a_character_share_its_label(inspection):
    """Of a byte-level model positions are bytes, and a pattern sees the characters."""
    found = await inspection.find(FindRequest(of_model("bytes", "aéb é"), "é"))
    assert (found.num_labelled, found.num_characters) == (4, 7)
    text, _, _ = await watched(inspection, WatchRequest(of_model("bytes", "aé"), (Units(Signal.H, 0),)))
    assert text == "a\xc3\xa9"


async def test_a_model_of_an_unknown_cell_says_that_gates_are_absent(inspection):
    """Its state can be watched, its step has logits; gates, terms and weights are refused with the reason."""
    described = await inspection.describe(Target(model="nan"))
    assert [(info.signal, info.size) for info in described.signals] == [(Signal.H, 1)]
    assert "not known" in described.gates_absent
    _, values, _ = await watched(inspection, WatchRequest(of_model("nan", "a!!"), (Units(Signal.H, 0),)))
    assert values[0].ravel().tolist() == [0, 1, 2]
    step = await inspection.explain(ExplainRequest(of_model("nan", "a!!"), num_candidates=2))
    assert (step.gates_absent, len(step.logits)) == (described.gates_absent, len(CHARACTERS))
    assert [(layer.h_before, layer.h, layer.gates) for layer in step.layers] == [([1.0], [2.0], [])]
    with pytest.raises(GatesAbsentError, match="not known"):
        await inspection.weights(Target(model="nan"))
    with pytest.raises(GatesAbsentError, match="not known"):
        await watched(inspection, WatchRequest(of_model("nan", "a"), (Units(Signal.FORGET, 0),)))


UNITS = (Units(Signal.H, 0, (0,)),)


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (WatchRequest(of_model("lstm"), ()), InvalidFieldError, "units: is empty"),
        (WatchRequest(of_model("lstm"), (Units(Signal.RESET, 0),)), InvalidFieldError, r"units\[0\].signal: is RESET"),
        (WatchRequest(of_model("lstm"), (*UNITS, Units(Signal.H, 2))), InvalidFieldError, r"units\[1\].layer: is 2"),
        (WatchRequest(of_model("lstm"), (Units(Signal.H, 0, (16,)),)), InvalidFieldError, r"units\[0\].units: is 16"),
        (WatchRequest(of_model("lstm"), (Units(Signal.H, 0, (1, 1)),)), InvalidFieldError, "names a unit twice"),
        (WatchRequest(of_model("lstm"), (Units(Signal.H, 0),) * 513), InvalidFieldError, "names 8208 units"),
        (WatchRequest(of_model("lstm"), UNITS, num_changed=65), InvalidFieldError, "changed_count: is 65"),
        (WatchRequest(of_model("lstm"), UNITS, -1), PositionOutOfRangeError, "start: is -1"),
        (WatchRequest(of_model("lstm"), UNITS, 3, 2), PositionOutOfRangeError, "start: is 3"),
        (WatchRequest(of_model("lstm"), UNITS, 0, 99), PositionOutOfRangeError, "end: is 99"),
        (WatchRequest(of_model("lstm", ""), UNITS), InvalidFieldError, "text: is empty"),
        (WatchRequest(of_model("lstm", "é"), UNITS), UnknownCharacterError, "not in the vocabulary"),
        (WatchRequest(of_model("lstm", "a" * 100_001), UNITS), InvalidFieldError, "has 100001 characters"),
    ],
)
async def test_a_watch_that_cannot_be_honoured_is_refused(inspection, request_, error, says):
    """One error names what is wrong and what is allowed."""
    with pytest.raises(error, match=says):
        await watched(inspection, request_)


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (FindRequest(of_model("lstm"), "("), InvalidFieldError, "pattern: is no regular expression"),
        (FindRequest(of_model("lstm"), ""), InvalidFieldError, "has 0 characters"),
        (FindRequest(of_model("lstm"), "x" * 1001), InvalidFieldError, "has 1001 characters"),
        (FindRequest(of_model("lstm"), "(a{100}){100}{100}"), InvalidFieldError, "no regular expression"),
        (FindRequest(of_model("lstm"), "Caesar"), InvalidFieldError, "the same number"),
        (FindRequest(of_model("lstm"), (99,)), PositionOutOfRangeError, "positions: is 99"),
        (FindRequest(of_model("lstm"), "a", num_units=101), InvalidFieldError, "unit_count: is 101"),
        (FindRequest(of_model("lstm"), "a", 5, 5), InvalidFieldError, "all 0 characters"),
        (ExplainRequest(of_model("lstm"), len(TEXT)), PositionOutOfRangeError, "end: is"),
        (ExplainRequest(of_model("lstm"), temperature=float("nan")), InvalidFieldError, "temperature: is nan"),
        (ExplainRequest(of_model("lstm"), num_candidates=21), InvalidFieldError, "candidate_count: is 21"),
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused(inspection, request_, error, says):
    """One error names what is wrong and what is allowed."""
    ask = inspection.find(request_) if isinstance(request_, FindRequest) else inspection.explain(request_)
    with pytest.raises(error, match=says):
        await ask


async def test_a_session_that_has_read_nothing_has_no_step(house, inspection):
    """There is nothing to explain, and nothing to watch."""
    target = Target(session=(await house.session("gru")).name)
    with pytest.raises(InvalidFieldError, match="nothing was read"):
        await inspection.explain(ExplainRequest(Source(target)))
    assert await watched(inspection, WatchRequest(Source(target), UNITS)) == ("", [], [])


async def test_a_reader_that_stops_holds_the_engine_to_its_window(house, inspection, monkeypatch):
    """A watch runs ahead of its reader by a bounded number of characters, and leaves when the reader leaves."""
    monkeypatch.setattr(module, "_AHEAD_CHARS", 8)
    request = WatchRequest(of_model("lstm", TEXT * 100), UNITS)
    async with contextlib.aclosing(inspection.watch(request)) as chunks:
        first = await anext(chunks)
        assert first.start == 0
        assert len(first.text) <= 8
        for _ in range(3):  # the engine answers others meanwhile
            await inspection.explain(ExplainRequest(of_model("lstm")))
        assert len((await anext(chunks)).text) <= 8
    assert house.engines[house.models.get("lstm").digest].num_streams == 0


@pytest.mark.parametrize("kind", ["gru", "lstm-int8"])
async def test_a_watch_alone_is_reported_in_large_pieces(inspection, kind):
    """Few messages, and few products: 64 characters each; a unit of a gate is what it is among all of them."""
    gate = Signal.CANDIDATE if kind == "gru" else Signal.FORGET
    units = (Units(gate, 1), Units(gate, 1, (9, 4)), Units(Signal.INPUT if kind != "gru" else Signal.UPDATE, 1, (4,)))
    _, values, chunks = await watched(inspection, WatchRequest(of_model(kind, TEXT * 5), units))
    assert min(len(chunk.text) for chunk in chunks[:-1]) >= 64
    _, narrow, _ = await watched(inspection, WatchRequest(of_model(kind, TEXT * 5), units[1:]))
    np.testing.assert_array_equal(values[1], values[0][:, [9, 4]])
    for alone, among in zip(narrow, values[1:], strict=True):
        np.testing.assert_allclose(alone, among, rtol=0, atol=1e-7)


async def test_there_are_only_so_many_at_once(inspection, monkeypatch):
    """One more than may run is refused with a time to come back; a place is free again when one ends."""
    monkeypatch.setattr(module, "MAX_INSPECTIONS", 1)
    request = WatchRequest(of_model("lstm", TEXT * 100), UNITS)
    async with contextlib.aclosing(inspection.watch(request)) as chunks:
        await anext(chunks)
        with pytest.raises(QuotaError, match="1 inspections"):
            await inspection.explain(ExplainRequest(of_model("lstm")))
    assert (await inspection.explain(ExplainRequest(of_model("lstm")))).position == len(TEXT) - 1


async def test_many_run_side_by_side_and_beside_turns(house, inspection):
    """Twenty watches and a turn on one engine all come to their ends, and give what each gives alone."""
    request = WatchRequest(of_model("gru", TEXT * 5), (Units(Signal.UPDATE, 1, (4,)),))
    _, alone, _ = await watched(inspection, request)
    turn = house.generate(Target(model="gru"), "O", 2000)
    *many, text = await asyncio.gather(*(watched(inspection, request) for _ in range(20)), turn)
    assert len(text.text) == 2000
    for _, values, _ in many:
        np.testing.assert_allclose(values[0], alone[0], rtol=0, atol=1e-7)
