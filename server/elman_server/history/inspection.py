"""Inspection: the state, the gates and the terms of a network that reads a text, or a transcript again."""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from msgspec import structs

from elman_server.domain import inspection as domain
from elman_server.domain.errors import GatesAbsentError, InvalidFieldError, QuotaError, ValueRangeError
from elman_server.domain.inspection import (
    ExplainedStep,
    FoundUnit,
    FoundUnits,
    Signal,
    SignalInfo,
    StateChunk,
    StateDescription,
    TextProperty,
    UnitChange,
    Units,
    Weights,
)
from elman_server.engine.inspection import (
    Compare,
    Compared,
    Describe,
    Described,
    Explain,
    Explained,
    ReadWeights,
    Watch,
    Watched,
    WeightsRead,
)
from elman_server.engine.job import Job
from elman_server.history.labelling import labelled, matches
from elman_server.history.passage import passage_of
from elman_server.models.signals import gate_signals, state_signals
from elman_server.sessions.service import check_position

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

    from elman_server.domain.inspection import ExplainRequest, FindRequest, WatchRequest
    from elman_server.domain.requests import Target
    from elman_server.engine import AnyEngine
    from elman_server.history.passage import Passage
    from elman_server.models.registry import ModelInfo, Models
    from elman_server.sessions.service import Sessions

MAX_INSPECTIONS: Final = 64  # at once: each holds a text and a state in an engine
_AHEAD_NUMBERS: Final = 1 << 19  # of watched values that may wait for their reader: 2 MiB
_AHEAD_CHARS: Final = 4096
_RETRY_AFTER: Final = 1.0
_NUMBERS_OF_CHANGE: Final = 4  # what a change takes, in numbers

_Report = TypeVar("_Report", Described, Explained, Compared, WeightsRead)


class Inspection:
    """Shows what the networks of a server compute; nothing changes.

    Args:
        engines: by model name.
    """

    def __init__(self, sessions: Sessions, models: Models, engines: Mapping[str, AnyEngine]) -> None:
        self._sessions = sessions
        self._models = models
        self._engines = engines
        self._num_running = 0

    async def describe(self, target: Target) -> StateDescription:
        """Return what can be watched of a model."""
        model = self._model(target)
        with self._place():
            absent, gates = await self._gates(model)
        signals = sorted([*state_signals_of(model), *gates], key=lambda info: info.layer)
        return StateDescription(tuple(signals), absent)

    async def watch(self, request: WatchRequest) -> AsyncGenerator[StateChunk, None]:
        """Yield the values of units after every character of a range, in chunks.

        Raises:
            InvalidFieldError: a signal, a layer or a unit that the model does not have, or too many.
            GatesAbsentError: the gates of this model are not known.
            PositionOutOfRangeError: the range is not in the text.
        """
        _check_range("changed_count", request.num_changed, domain.MAX_CHANGED)
        with self._place():
            passage = await self._passage(request)
            model, units = passage.model, await self._named(request, passage.model)
            num_numbers = sum(len(chosen.units) for chosen in units) + _NUMBERS_OF_CHANGE * request.num_changed
            window = min(_AHEAD_CHARS, max(1, _AHEAD_NUMBERS // num_numbers))
            at, end = passage.skipped, len(passage.ids)
            if at == end:
                return
            ask = Watch(units, passage.skipped, request.num_changed)
            with self._engines[model.digest].open(passage.job(ask, window)) as stream:
                while at < end:
                    report = (await stream.next()).report
                    assert isinstance(report, Watched)
                    text = "".join(map(model.vocabulary.symbol, passage.ids[at : at + report.num_chars]))
                    start = passage.start + at - passage.skipped
                    yield StateChunk(start, text, units, report.values, _changes(model, report))
                    at += report.num_chars
                    stream.allow(report.num_chars)

    async def explain(self, request: ExplainRequest) -> ExplainedStep:
        """Return the terms of one step.

        Raises:
            PositionOutOfRangeError: the position is not in the text.
        """
        if not (request.temperature >= 0 and math.isfinite(request.temperature)):
            raise ValueRangeError("temperature", request.temperature, "0", "inf", "from 0, finite")
        _check_range("candidate_count", request.num_candidates, domain.MAX_CANDIDATES)
        _check_range("contribution_count", request.num_contributions, domain.MAX_CONTRIBUTIONS)
        with self._place():
            passage = await self._passage(request)
            model = passage.model
            ask = Explain(request.num_candidates, request.num_contributions, _hidden(model))
            report = await self._ask(model, passage.job(ask), Explained)
        shown = [index for index in range(len(report.logits)) if index not in ask.hidden]
        logits = [report.logits[index] for index in shown]
        return ExplainedStep(
            text=model.vocabulary.symbol(passage.ids[-1]),
            position=passage.start,
            symbols=model.labels or [model.vocabulary.symbol(index) for index in shown],
            layers=report.layers,
            logits=logits,
            probabilities=_softmax(logits, request.temperature),
            candidates=[structs.replace(found, id=shown.index(found.id)) for found in report.candidates],
            gates_absent=report.gates_absent,
        )

    async def find(self, request: FindRequest) -> FoundUnits:
        """Return the units that follow a labelling best.

        Raises:
            InvalidFieldError: the labelling is no pattern, or gives all characters the same number.
            PositionOutOfRangeError: the range, or a position, is not in the text.
        """
        if not 0 <= request.num_units <= domain.MAX_FOUND:
            allowed = f"from 1 to {domain.MAX_FOUND}, or 0 for {domain.FOUND}"
            raise ValueRangeError("unit_count", request.num_units, "0", str(domain.MAX_FOUND), allowed)
        with self._place():
            passage = await self._passage(request)
            labels = await _labels(request, passage)
            if not labels or min(labels) == max(labels):
                raise InvalidFieldError(
                    "labelling",
                    f"gives all {len(labels)} characters the same number; choose one that differs between them",
                )
            ask = Compare(labels, passage.skipped)
            report = await self._ask(passage.model, passage.job(ask), Compared)
        best = _best(passage.model, report, request.num_units or domain.FOUND)
        return FoundUnits(best, sum(label != 0 for label in labels), len(labels))

    async def weights(self, target: Target) -> Weights:
        """Return the weights of a small model; raises GatesAbsentError."""
        model = self._model(target)
        with self._place():
            found = await self._ask(model, _without_text(model, ReadWeights(_hidden(model))), WeightsRead)
        if found.refusal or found.output_weight is None or found.output_bias is None:
            raise GatesAbsentError(f"{model.resource}: {found.refusal}")
        return Weights(found.layers, found.output_weight, found.output_bias)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._num_running >= MAX_INSPECTIONS:
            raise QuotaError("inspections", MAX_INSPECTIONS, _RETRY_AFTER)
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1

    def _model(self, target: Target) -> ModelInfo:
        assert target.model is not None
        return self._models.get(target.model, target.version)

    async def _passage(self, request: WatchRequest | ExplainRequest | FindRequest) -> Passage:
        return await passage_of(self._sessions, self._models, request.source, *request.range)

    async def _ask(self, model: ModelInfo, job: Job, kind: type[_Report]) -> _Report:
        """Return what the engine reports at the end of a job."""
        with self._engines[model.digest].open(job) as stream:
            report = (await stream.next()).report
        assert isinstance(report, kind)
        return report

    async def _gates(self, model: ModelInfo) -> tuple[str, list[SignalInfo]]:
        """Return the gates of a model, or why they are absent."""
        absent = (await self._ask(model, _without_text(model, Describe()), Described)).gates_absent
        return absent, [] if absent else gate_signals(model.cell, model.num_layers, model.hidden_size)

    async def _named(self, request: WatchRequest, model: ModelInfo) -> tuple[Units, ...]:
        """Return the units that are to be watched, each by its number, after checking that the model has them."""
        if not request.units and not request.num_changed:
            raise InvalidFieldError("units", "is empty; name at least one unit, or set changed_count")
        sizes = {(info.signal, info.layer): info.size for info in state_signals_of(model)}
        if any(chosen.signal not in _STATE for chosen in request.units):
            absent, gates = await self._gates(model)
            if absent:
                raise GatesAbsentError(f"{model.resource}: {absent}")
            sizes |= {(info.signal, info.layer): info.size for info in gates}
        named = tuple(_numbered(f"units[{index}]", chosen, sizes, model) for index, chosen in enumerate(request.units))
        if (count := sum(len(chosen.units) for chosen in named)) > domain.MAX_UNITS:
            raise InvalidFieldError("units", f"names {count} units; at most {domain.MAX_UNITS} are allowed in all")
        return named


_STATE: Final = (Signal.H, Signal.C)


def state_signals_of(model: ModelInfo) -> list[SignalInfo]:
    """Return what each state tensor of a model is, in its order."""
    return state_signals(model.cell, model.num_layers, [len(tensor) // 4 for tensor in model.initial.tensors])


def _hidden(model: ModelInfo) -> tuple[int, ...]:
    """Return the ids that stand for no text, which callers never see."""
    return () if model.labels else tuple(model.vocabulary.specials.values())


def _without_text(model: ModelInfo, ask: Describe | ReadWeights) -> Job:
    return Job(model.initial, 0, [], inspect=ask)


def _check_range(field: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ValueRangeError(field, value, "0", str(most), f"from 0 to {most}")


def _numbered(where: str, chosen: Units, sizes: Mapping[tuple[Signal, int], int], model: ModelInfo) -> Units:
    """Return units by their numbers; raises InvalidFieldError for what the model does not have."""
    signal = chosen.signal
    layers = sorted(layer for known, layer in sizes if known is signal)
    if not layers:
        names = ", ".join(sorted({known.name for known, _ in sizes}))
        raise InvalidFieldError(f"{where}.signal", f"is {signal.name}; {model.resource} has {names}")
    if chosen.layer not in layers:
        low, high = layers[0], layers[-1]
        raise ValueRangeError(f"{where}.layer", chosen.layer, str(low), str(high), f"from {low} to {high}")
    size = sizes[signal, chosen.layer]
    units = chosen.units or tuple(range(size))
    for unit in units:
        if not 0 <= unit < size:
            raise ValueRangeError(f"{where}.units", unit, "0", str(size - 1), f"from 0 to {size - 1}")
    if len(set(units)) < len(units):
        raise InvalidFieldError(f"{where}.units", "names a unit twice; name each at most once")
    return Units(signal, chosen.layer, units)


def _unit_names(model: ModelInfo) -> list[tuple[Signal, int, int]]:
    """Return signal, layer and number of each unit of the state, as the engine counts them."""
    return [(info.signal, info.layer, unit) for info in state_signals_of(model) for unit in range(info.size)]


def _changes(model: ModelInfo, report: Watched) -> list[list[UnitChange]]:
    if not report.changes:
        return []
    names = _unit_names(model)
    return [[UnitChange(*names[c.unit], c.before, c.after) for c in changes] for changes in report.changes]


def _best(model: ModelInfo, report: Compared, count: int) -> list[FoundUnit]:
    names = _unit_names(model)
    known = [index for index, value in enumerate(report.correlations) if not math.isnan(value)]
    known.sort(key=lambda index: (-abs(report.correlations[index]), index))
    return [
        FoundUnit(*names[at], report.correlations[at], report.means_labelled[at], report.means_other[at])
        for at in known[:count]
    ]


def _softmax(logits: Sequence[float], temperature: float) -> list[float]:
    """Return softmax(logits / temperature); of temperature 0 all for the first of the likeliest."""
    distance = np.array(logits) - max(logits)
    if temperature == 0:
        likeliest = np.zeros(len(logits))
        likeliest[int(distance.argmax())] = 1
        return likeliest.tolist()
    with np.errstate(over="ignore"):  # at a tiny temperature exp(-inf) is what is meant
        weights = np.exp(distance / temperature)
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares


async def _labels(request: FindRequest, passage: Passage) -> list[float]:
    """Return a number for each character of the range; of a byte-level model each byte has its character's."""
    labelling, ids = request.labelling, passage.shown
    if isinstance(labelling, tuple):
        end = passage.start + len(ids)
        labels = [0.0] * len(ids)
        for position in labelling:
            check_position("positions", position, passage.start, end - 1)
            labels[position - passage.start] = 1.0
        return labels
    vocabulary = passage.model.vocabulary
    if vocabulary.characters is not None:
        text, widths = "".join(map(vocabulary.symbol, ids)), None
    else:
        raw = bytes(ids).decode("utf-8", "surrogateescape")
        widths = [len(character.encode("utf-8", "surrogateescape")) for character in raw]
        text = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in raw)
    if isinstance(labelling, TextProperty):
        of_characters = labelled(labelling, text)
    else:
        of_characters = await asyncio.to_thread(matches, labelling, text)
    if widths is None:
        return of_characters
    return [label for label, width in zip(of_characters, widths, strict=True) for _ in range(width)]
