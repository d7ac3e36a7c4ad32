"""What a network computes: its state after every character, its gates, the terms of one step."""

import sys
from array import array
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from elman_client._types.value import Value


class Signal(StrEnum):
    """A quantity that every unit of a layer has."""

    UNSPECIFIED = "UNSPECIFIED"  # one that this client does not know yet
    H = "H"  # the hidden state; of a model whose cell is not known, layer i is its i-th state tensor
    C = "C"  # the cell state of an LSTM
    RESET = "RESET"  # r of a GRU
    UPDATE = "UPDATE"  # z of a GRU
    CANDIDATE = "CANDIDATE"  # n of a GRU
    INPUT = "INPUT"  # i of an LSTM
    FORGET = "FORGET"  # f of an LSTM
    CELL = "CELL"  # g of an LSTM
    OUTPUT = "OUTPUT"  # o of an LSTM


class TextProperty(StrEnum):
    """What a text can be labelled by, without a pattern."""

    LINE_POSITION = "LINE_POSITION"  # characters since the last line break: a number
    INSIDE_QUOTES = "INSIDE_QUOTES"  # between two double quotes
    LINE_START = "LINE_START"  # the first character after a line break
    INSIDE_WORD = "INSIDE_WORD"  # letters and digits
    WORD_POSITION = "WORD_POSITION"  # letters and digits up to this one since the last other character: a number
    CAPITAL = "CAPITAL"


@dataclass(frozen=True)
class SignalInfo(Value):
    """A signal of a layer, which has ``size`` units. Layers count from 0, which reads the characters."""

    signal: Signal
    layer: int
    size: int


@dataclass(frozen=True)
class StateDescription(Value):
    """What ``watch`` can show of a model.

    Attributes:
        signals: Layer by layer: the state, then the gates.
        gates_absent: Why gates and terms are not available; empty: they are.
    """

    signals: tuple[SignalInfo, ...]
    gates_absent: str


@dataclass(frozen=True)
class Units(Value):
    """Some units of one signal of a layer, from 0; empty: all of them."""

    signal: Signal
    layer: int
    units: tuple[int, ...] = ()


@dataclass(frozen=True)
class Matrix(Value):
    """Numbers in rows and columns. NumPy reads it by ``numpy.frombuffer(m.data, "<f4").reshape(m.shape)``.

    Attributes:
        num_rows: Rows.
        num_columns: Columns.
        data: float32, little-endian, row by row.
    """

    num_rows: int
    num_columns: int
    data: bytes

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.num_rows, self.num_columns

    def to_lists(self) -> list[list[float]]:
        """Return the numbers, row by row."""
        values = array("f", self.data)
        if sys.byteorder == "big":
            values.byteswap()
        size = self.num_columns
        return [values[start : start + size].tolist() for start in range(0, size * self.num_rows, size or 1)]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as ``json.dumps`` takes them: ``data`` is a list of rows."""
        return {"num_rows": self.num_rows, "num_columns": self.num_columns, "data": self.to_lists()}


@dataclass(frozen=True)
class UnitValues(Value):
    """The values of some units after each character of a chunk.

    Attributes:
        signal: What it is; a gate's value is that in the step that read the character.
        layer: From 0.
        units: Those of the columns.
        values: A row for each character, a column for each unit.
    """

    signal: Signal
    layer: int
    units: tuple[int, ...]
    values: Matrix


@dataclass(frozen=True)
class UnitChange(Value):
    """A unit of h or c before and after a character."""

    signal: Signal
    layer: int
    unit: int
    before: float
    after: float


@dataclass(frozen=True)
class StateChunk(Value):
    """Some characters, and the state after each.

    Attributes:
        start: The position of the first one, in the text or in the transcript.
        text: One code point for each position; for byte-level models one byte, shown as U+0000 to U+00FF.
        values: One entry for each of the units asked for, in their order.
        changes: For each character the units that changed most, the largest change first, if asked for.
    """

    start: int
    text: str
    values: tuple[UnitValues, ...]
    changes: tuple[tuple[UnitChange, ...], ...]


@dataclass(frozen=True)
class GateStep(Value):
    """One sum of a step, with a number for each unit: ``pre_activation`` = input + recurrent + bias.

    Of a GRU's candidate it is input + bias + r (recurrent + recurrent_bias), with the gate r.

    Attributes:
        signal: The gate; ``Signal.H`` for the one sum of an Elman network.
        input: W_xh x; in layer 0, if ``bias`` is empty, W_xh x + b: some artefacts hold only that sum.
        recurrent: W_hh h_before.
        bias: b, or empty.
        recurrent_bias: Of a GRU's candidate; empty otherwise.
        pre_activation: The sum.
        activation: tanh of it (H, CANDIDATE, CELL), or its sigmoid.
    """

    signal: Signal
    input: tuple[float, ...]
    recurrent: tuple[float, ...]
    bias: tuple[float, ...]
    recurrent_bias: tuple[float, ...]
    pre_activation: tuple[float, ...]
    activation: tuple[float, ...]


@dataclass(frozen=True)
class LayerStep(Value):
    """One layer in one step, with a number for each unit.

    Attributes:
        layer: From 0.
        h_before: h before the step.
        c_before: c before it; empty unless the cell is an LSTM.
        gates: H for Elman; r, z, n for a GRU; i, f, g, o for an LSTM; none if they are absent.
        h: h after it: tanh(...); (1 - z) n + z h_before; o tanh(c).
        c: c after it: f c_before + i g; empty unless the cell is an LSTM.
    """

    layer: int
    h_before: tuple[float, ...]
    c_before: tuple[float, ...]
    gates: tuple[GateStep, ...]
    h: tuple[float, ...]
    c: tuple[float, ...]


@dataclass(frozen=True)
class UnitContribution(Value):
    """What a unit of the last layer adds to a logit: ``contribution`` = weight times activation."""

    unit: int
    activation: float
    weight: float
    contribution: float


@dataclass(frozen=True)
class CandidateStep(Value):
    """A next character (or a label) and what made it likely.

    Attributes:
        text: The character; for byte-level models one byte, shown as U+0000 to U+00FF.
        logit: ``bias`` plus the contributions of all units.
        probability: softmax(logits / temperature).
        bias: The output's.
        contributions: The largest in size first.
    """

    text: str
    logit: float
    probability: float
    bias: float
    contributions: tuple[UnitContribution, ...]


@dataclass(frozen=True)
class ExplainedStep(Value):
    """Every term of one step.

    Attributes:
        text: The character that it reads; for byte-level models one byte, shown as U+0000 to U+00FF.
        position: That character's.
        layers: From the one that reads the character on.
        logits: In the order of the model's vocabulary, or of its labels.
        probabilities: softmax(logits / temperature), in the same order.
        candidates: The likeliest, likeliest first.
        gates_absent: Why gates and contributions are not there; empty: they are.
    """

    text: str
    position: int
    layers: tuple[LayerStep, ...]
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    candidates: tuple[CandidateStep, ...]
    gates_absent: str


@dataclass(frozen=True)
class FoundUnit(Value):
    """A unit of the state, and how it follows a labelling.

    Attributes:
        signal: H or C.
        layer: From 0.
        unit: From 0.
        correlation: Pearson's, -1 to 1.
        mean_labelled: The unit's mean over characters whose label is not 0.
        mean_other: Its mean over the others.
    """

    signal: Signal
    layer: int
    unit: int
    correlation: float
    mean_labelled: float
    mean_other: float


@dataclass(frozen=True)
class FoundUnits(Value):
    """The units that follow a labelling best.

    Attributes:
        units: The largest correlation, of either sign, first.
        num_labelled: Characters whose label is not 0.
        num_characters: Characters that were compared.
    """

    units: tuple[FoundUnit, ...]
    num_labelled: int
    num_characters: int


@dataclass(frozen=True)
class GateWeights(Value):
    """The weights of one sum.

    Attributes:
        signal: The gate; H for the one sum of an Elman network.
        input: W_xh: a row for each unit; a column for each character in layer 0, for each unit of
            the layer below in others. In layer 0, if ``bias`` is ``None``, b is added to each column.
        recurrent: W_hh: a row for each unit, a column for each unit.
        bias: b, one column, or ``None``.
        recurrent_bias: Of a GRU's candidate, one column; ``None`` otherwise.
    """

    signal: Signal
    input: Matrix
    recurrent: Matrix
    bias: Matrix | None
    recurrent_bias: Matrix | None


@dataclass(frozen=True)
class Weights(Value):
    """The weights of a model; of int8 models the numbers that they stand for.

    Attributes:
        layers: For each layer its gates.
        output_weight: W_hy: a row for each character or label, a column for each unit of the last layer.
        output_bias: One column.
    """

    layers: tuple[tuple[GateWeights, ...], ...]
    output_weight: Matrix
    output_bias: Matrix
