"""Studies: what an inspection makes of the states that a network goes through."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

import numpy as np

from elman_server.domain.inspection import (
    MAX_WEIGHTS,
    Contribution,
    ExplainedCandidate,
    ExplainedGate,
    ExplainedLayer,
    Signal,
    Table,
    WeightsOfGate,
)
from elman_server.engine.inspection import Change, Compare, Compared, Explain, Explained, Watch, Watched, WeightsRead
from elman_server.models.cells import AbsentError, Cells, LayerTerms

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from elman_server.domain.inspection import SignalInfo, Units
    from elman_server.engine.inspection import Report
    from elman_server.models.cells import Gate, GateTerms

    Floats = NDArray[np.float64]
    States = list[NDArray[np.float32]]

_MAX_NUMBERS: Final = 1 << 18  # of one report: 1 MiB
_WATCHED_ROWS: Final = 64  # of one report: fewer cost a message each, and their gates a reading of all weights
_UNHURRIED: Final = 8  # characters of a piece that no turn waits for
_TOLERANCE: Final = 1e-3  # between equations and graph: wide for rounding, narrow for another cell


class Steps(NamedTuple):
    """Some steps: characters [T], logits [T, V], and each state tensor before and after them, flat: [T, S]."""

    chars: NDArray[np.int64]
    logits: NDArray[np.float32]
    before: States
    after: States

    @classmethod
    def of(cls, chars: NDArray[np.int64], logits: NDArray[np.float32], walked: States, begin: States) -> Self:
        """Return the steps of one row: characters [T, 1], logits [T, 1, V], states [T, 1, ...] from [1, ...] on."""
        after = [state.reshape(len(state), -1) for state in walked]
        before = [np.concatenate([b.reshape(1, -1), a[:-1]]) for b, a in zip(begin, after, strict=True)]
        return cls(chars[:, 0], logits[:, 0], before, after)

    @classmethod
    def joined(cls, pieces: Sequence[Self]) -> Self:
        """Return steps that follow one another as one piece."""
        if len(pieces) == 1:
            return pieces[0]
        chars, logits, before, after = zip(*pieces, strict=True)
        states = ([np.concatenate(tensor) for tensor in zip(*side, strict=True)] for side in (before, after))
        return cls(np.concatenate(chars), np.concatenate(logits), *states)

    def terms(self, cells: Cells, layer: int) -> LayerTerms:
        """Return the terms of one layer at each step."""
        below, (h, *c) = self._inputs(cells, layer)
        return cells.terms(layer, below, h, c[0] if c else None)

    def gates(self, cells: Cells, layer: int, wanted: Collection[Signal]) -> dict[Signal, GateTerms]:
        """Return some sums of one layer at each step."""
        below, (h, *_) = self._inputs(cells, layer)
        return cells.gates(layer, below, h, wanted)

    def _inputs(self, cells: Cells, layer: int) -> tuple[NDArray[Any], list[Floats]]:
        """Return what a layer reads, and its own state before it."""
        kinds = len(self.after) // len(cells.layers)
        below = self.after[(layer - 1) * kinds] if layer else self.chars
        return below, [state.astype(np.float64) for state in self.before[layer * kinds : (layer + 1) * kinds]]


class Study(Protocol):
    """What an inspection makes of its steps.

    Attributes:
        start: the first character of the prompt that it looks at.
    """

    start: int

    @property
    def max_piece(self) -> int:
        """The most characters that it takes at once."""

    def add(self, steps: Steps) -> Report | None:
        """Take the next steps; return what is to be reported now."""

    def flush(self) -> Report | None:
        """Return what is left to report at the end, and before a pause."""


class Observation:
    """Reports chosen units after every character."""

    def __init__(self, ask: Watch, signals: Sequence[SignalInfo], cells: Cells | AbsentError) -> None:
        self.start = ask.start
        self._num_changed = ask.num_changed
        self._units = [(chosen.signal, chosen.layer, np.array(chosen.units, np.int64)) for chosen in ask.units]
        self._tensors = {(info.signal, info.layer): index for index, info in enumerate(signals)}
        gates = [chosen for chosen in ask.units if (chosen.signal, chosen.layer) not in self._tensors]
        self._gates = {
            layer: _WatchedGates(cells, layer, [chosen for chosen in gates if chosen.layer == layer])
            for layer in {chosen.layer for chosen in gates}
        }
        self._max_rows = max(1, _MAX_NUMBERS // max(1, sum(len(chosen.units) for chosen in ask.units)))
        self._held: list[Steps] = []  # which are reported together
        self._num_held = 0

    @property
    def max_piece(self) -> int:
        """The most characters that one report still has room for."""
        return self._max_rows - self._num_held

    def add(self, steps: Steps) -> Watched | None:
        """Report them, or hold them until they are worth a report."""
        self._held.append(steps)
        self._num_held += len(steps.chars)
        enough = min(_WATCHED_ROWS, self._max_rows)
        if self._num_held < enough and len(steps.chars) >= _UNHURRIED:
            return None
        return self.flush()

    def flush(self) -> Watched | None:
        """Report what is held."""
        if not self._held:
            return None
        steps = Steps.joined(self._held)
        self._held, self._num_held = [], 0
        gates = {layer: watched.values(steps) for layer, watched in self._gates.items()}
        values = []
        for signal, layer, units in self._units:
            tensor = self._tensors.get((signal, layer))
            columns = gates[layer][signal] if tensor is None else steps.after[tensor]
            at = units if tensor is not None else self._gates[layer].columns(units)
            values.append(columns.take(at, axis=1).astype("<f4", copy=False).tobytes())
        return Watched(len(steps.chars), values, self._changes(steps) if self._num_changed else [])

    def _changes(self, steps: Steps) -> list[list[Change]]:
        before, after = (np.concatenate(states, axis=1) for states in (steps.before, steps.after))
        size = np.abs(after - before)  # [T, S]
        count = min(self._num_changed, size.shape[1])
        largest = np.argpartition(-size, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(size, largest, axis=1), axis=1, kind="stable")
        largest = np.take_along_axis(largest, order, axis=1)
        rows = (np.take_along_axis(array, largest, axis=1).tolist() for array in (before, after))
        return [list(map(Change, *row)) for row in zip(largest.tolist(), *rows, strict=True)]


class _WatchedGates:
    """The gates of one layer that are watched: only the columns of their units are computed."""

    def __init__(self, cells: Cells | AbsentError, layer: int, chosen: Sequence[Units]) -> None:
        assert isinstance(cells, Cells)  # the server has asked whether there are gates
        self._layer = layer
        self._signals = {each.signal for each in chosen}
        self._units = np.unique(np.concatenate([each.units for each in chosen]))
        self._cells = cells.narrowed(layer, self._units)

    def values(self, steps: Steps) -> dict[Signal, Floats]:
        """Return each gate after every step, [T, columns]."""
        found = steps.gates(self._cells, self._layer, self._signals)
        return {signal: terms.activation for signal, terms in found.items()}

    def columns(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which columns are some units."""
        return np.searchsorted(self._units, units)


class Explanation:
    """Reports every term of the step that reads the last character."""

    max_piece = 1

    def __init__(self, ask: Explain, signals: Sequence[SignalInfo], cells: Cells | AbsentError, num_chars: int) -> None:
        self.start = num_chars - 1
        self._ask = ask
        self._signals = signals
        self._cells = cells
        self._hidden = list(ask.hidden)

    def add(self, steps: Steps) -> Explained:
        """Report it."""
        cells = self._cells
        if isinstance(cells, AbsentError):
            likeliest = self._likeliest(steps.logits[0])
            candidates = [ExplainedCandidate(index, 0.0, []) for index in likeliest]
            return Explained(self._states(steps), steps.logits[0].tolist(), candidates, str(cells))
        layers = []
        for index in range(len(cells.layers)):
            terms = steps.terms(cells, index)
            kinds = len(steps.before) // len(cells.layers)
            h, *c = (state[0].tolist() for state in steps.before[index * kinds : (index + 1) * kinds])
            after = [] if terms.c is None else terms.c[0].tolist()
            layers.append(ExplainedLayer(h, c[0] if c else [], _gates(terms), terms.h[0].tolist(), after))
        logits = cells.logits(terms.h)[0]
        return Explained(layers, logits.tolist(), self._candidates(cells, logits, terms.h))

    def flush(self) -> None:
        """Report nothing more."""

    def _states(self, steps: Steps) -> list[ExplainedLayer]:
        """Return the states alone, where the terms are absent."""
        layers: dict[int, ExplainedLayer] = {}
        for info, before, after in zip(self._signals, steps.before, steps.after, strict=True):
            old, new = before[0].tolist(), after[0].tolist()
            if info.signal is Signal.H:
                layers[info.layer] = ExplainedLayer(old, [], [], new, [])
            else:
                below = layers[info.layer]
                layers[info.layer] = ExplainedLayer(below.h_before, old, [], below.h, new)
        return list(layers.values())

    def _likeliest(self, logits: NDArray[np.floating]) -> list[int]:
        shown = logits.copy()
        shown[self._hidden] = -np.inf
        found: list[int] = np.argsort(-shown, kind="stable")[: self._ask.num_candidates].tolist()
        return found

    def _candidates(self, cells: Cells, logits: Floats, h: Floats) -> list[ExplainedCandidate]:
        operand = cells.operand(h)[0]
        found = []
        for index in self._likeliest(logits):
            weights = cells.output_weight[:, index]
            units = np.argsort(-np.abs(weights * operand), kind="stable")[: self._ask.num_contributions]
            contributions = [Contribution(int(u), float(operand[u]), float(weights[u])) for u in units]
            found.append(ExplainedCandidate(index, float(cells.output_bias[index]), contributions))
        return found


class Comparison:
    """Reports how each unit of the state follows a labelling: sums over all characters, so that no text is too long."""

    max_piece = 1 << 30

    def __init__(self, ask: Compare) -> None:
        self.start = ask.start
        self._labels = np.array(ask.labels, np.float64)
        self._num_seen = 0
        self._first: Floats | None = None  # the first state: sums of differences lose no digits
        self._sums = np.zeros((4, 0))  # of x, x^2, x y, and of x where y is not 0

    def add(self, steps: Steps) -> None:
        """Add them up, one character after another: so the same text gives the same bits, whatever the pieces."""
        rows = np.concatenate(steps.after, axis=1).astype(np.float64)  # [T, S]
        if self._first is None:
            self._first = rows[0].copy()
            self._sums = np.zeros((4, rows.shape[1]))
        labels = self._labels[self._num_seen : self._num_seen + len(rows)]
        self._num_seen += len(rows)
        total, squares, products, labelled = self._sums
        for x, y in zip(rows - self._first, labels, strict=True):
            total += x
            squares += x * x
            if y:
                products += x * y
                labelled += x

    def flush(self) -> Compared:
        """Report correlations and means."""
        assert self._first is not None
        y, count = self._labels, len(self._labels)
        x_sum, x_squares, products, labelled = self._sums
        num_labelled = int(np.count_nonzero(y))
        covariance = products - x_sum * y.mean()
        x_spread = np.maximum(x_squares - x_sum * x_sum / count, 0)
        spread = np.sqrt(x_spread * ((y - y.mean()) ** 2).sum())
        correlations = np.where(spread > 0, covariance / np.where(spread > 0, spread, 1), np.nan)
        means = labelled / max(1, num_labelled) + self._first
        others = (x_sum - labelled) / max(1, count - num_labelled) + self._first
        return Compared(
            np.clip(correlations, -1, 1).tolist(),
            means.tolist(),
            others.tolist() if num_labelled < count else [0.0] * len(others),
        )


def differ(cells: Cells, steps: Steps) -> bool:
    """Return whether equations and graph differ by more than rounding."""
    kinds = len(steps.after) // len(cells.layers) if len(steps.after) % len(cells.layers) == 0 else 0
    if not kinds:
        return True
    try:
        pairs = [(steps.terms(cells, layer).h, steps.after[layer * kinds]) for layer in range(len(cells.layers))]
        pairs.append((cells.logits(steps.after[-kinds]), steps.logits))
        return not all(float(np.abs(one - other).max()) < _TOLERANCE for one, other in pairs)
    except (ValueError, IndexError):  # other shapes
        return True


def tables(cells: Cells | AbsentError, hidden: Sequence[int]) -> WeightsRead:
    """Return the weights as tables, or why there are none; without the rows and columns of hidden ids."""
    if isinstance(cells, AbsentError):
        return WeightsRead(refusal=str(cells))
    gates = [gate for layer in cells.layers for gate in layer]
    count = cells.output_weight.size + sum(gate.input.size + gate.recurrent.size for gate in gates)
    if count > MAX_WEIGHTS:
        return WeightsRead(refusal=f"the model has {count} weights; at most {MAX_WEIGHTS} are returned")
    first = [replace(gate, input=np.delete(gate.input, hidden, axis=0)) for gate in cells.layers[0]]
    layers = [[_weights(gate) for gate in layer] for layer in (first, *cells.layers[1:])]
    weight, bias = np.delete(cells.output_weight, hidden, axis=1), np.delete(cells.output_bias, hidden)
    return WeightsRead(layers, _table(weight.T), _column(bias))


def _gates(terms: LayerTerms) -> list[ExplainedGate]:
    return [
        ExplainedGate(
            gate.signal,
            gate.input[0].tolist(),
            gate.recurrent[0].tolist(),
            [] if gate.bias is None else gate.bias.tolist(),
            [] if gate.recurrent_bias is None else gate.recurrent_bias.tolist(),
            gate.pre_activation[0].tolist(),
            gate.activation[0].tolist(),
        )
        for gate in terms.gates
    ]


def _weights(gate: Gate) -> WeightsOfGate:
    return WeightsOfGate(
        gate.signal,
        _table(gate.input.T),
        _table(gate.recurrent.T),
        None if gate.bias is None else _column(gate.bias),
        None if gate.recurrent_bias is None else _column(gate.recurrent_bias),
    )


def _table(matrix: Floats) -> Table:
    num_rows, num_columns = matrix.shape
    return Table(num_rows, num_columns, np.ascontiguousarray(matrix, "<f4").tobytes())


def _column(vector: Floats) -> Table:
    return _table(vector[:, None])
