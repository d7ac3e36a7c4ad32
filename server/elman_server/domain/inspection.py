"""Inspection: what callers ask about the inside of a network, and what they get."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server.domain.vocabulary import REJECT, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elman_server.domain.requests import Target

MAX_UNITS: Final = 8192
MAX_CHANGED: Final = 64
MAX_CANDIDATES: Final = 20
MAX_CONTRIBUTIONS: Final = 64
MAX_FOUND: Final = 100
FOUND: Final = 10  # unless another number is asked for
MAX_WEIGHTS: Final = 1_000_000


class Signal(enum.Enum):
    """A quantity that every unit of a layer has. The values are the artefact's words for the gates."""

    H = "h"
    C = "c"
    RESET = "reset"
    UPDATE = "update"
    CANDIDATE = "candidate"
    INPUT = "input"
    FORGET = "forget"
    CELL = "cell"
    OUTPUT = "output"


class TextProperty(enum.Enum):
    """What a text can be labelled by, without a pattern."""

    LINE_POSITION = "line_position"  # characters since the last line break
    INSIDE_QUOTES = "inside_quotes"
    LINE_START = "line_start"
    INSIDE_WORD = "inside_word"
    WORD_POSITION = "word_position"  # letters and digits since the last other character
    CAPITAL = "capital"


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """A signal of a layer, with its number of units."""

    signal: Signal
    layer: int
    size: int


@dataclass(frozen=True, slots=True)
class Units:
    """Some units of a signal of a layer; none: all of them."""

    signal: Signal
    layer: int
    units: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What is read: a text after the state of the target; empty: the transcript of a session."""

    target: Target
    text: str = ""
    unknown: Unknown = REJECT


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """Values of units after every character from `start` to `end`; None: to the end."""

    source: Source
    units: tuple[Units, ...]
    start: int = 0
    end: int | None = None
    num_changed: int = 0

    @property
    def range(self) -> tuple[int, int | None]:
        """What is shown."""
        return self.start, self.end


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """The terms of the step that reads the character at a position; None: the last one."""

    source: Source
    position: int | None = None
    temperature: float = 1.0
    num_candidates: int = 0
    num_contributions: int = 0

    @property
    def range(self) -> tuple[int | None, int | None]:
        """What is shown: one position; None: the last one."""
        return (None, None) if self.position is None else (self.position, self.position + 1)


@dataclass(frozen=True, slots=True)
class FindRequest:
    """The units that follow a labelling of the text from `start` to `end`; None: to the end.

    Attributes:
        labelling: a regular expression, a property, or the positions that are labelled.
    """

    source: Source
    labelling: str | TextProperty | tuple[int, ...]
    start: int = 0
    end: int | None = None
    num_units: int = FOUND

    @property
    def range(self) -> tuple[int, int | None]:
        """What is compared."""
        return self.start, self.end


@dataclass(frozen=True, slots=True)
class StateDescription:
    """The signals of a model, and why its gates are absent; "" if they are known."""

    signals: tuple[SignalInfo, ...]
    gates_absent: str


@dataclass(frozen=True, slots=True)
class UnitChange:
    """A unit of the state before and after a character."""

    signal: Signal
    layer: int
    unit: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class StateChunk:
    """Some characters that were watched.

    Attributes:
        text: one code point for each position.
        units: the columns of `values`.
        values: float32 [characters, units] for each of `units`.
        changes: for each character.
    """

    start: int
    text: str
    units: tuple[Units, ...]
    values: list[bytes]
    changes: list[list[UnitChange]]


@dataclass(frozen=True, slots=True)
class FoundUnit:
    """A unit of the state and how it follows a labelling."""

    signal: Signal
    layer: int
    unit: int
    correlation: float
    mean_labelled: float
    mean_other: float


@dataclass(frozen=True, slots=True)
class FoundUnits:
    """The units that follow a labelling best, and how many characters were labelled and compared."""

    units: list[FoundUnit]
    num_labelled: int
    num_characters: int


class ExplainedGate(msgspec.Struct, frozen=True):
    """The terms of one sum: a number a unit; empty where there is no such term."""

    signal: Signal
    input: list[float]
    recurrent: list[float]
    bias: list[float]
    recurrent_bias: list[float]
    pre_activation: list[float]
    activation: list[float]


class ExplainedLayer(msgspec.Struct, frozen=True):
    """One layer; `c` are empty unless the cell is an LSTM."""

    h_before: list[float]
    c_before: list[float]
    gates: list[ExplainedGate]
    h: list[float]
    c: list[float]


class Contribution(msgspec.Struct, frozen=True, array_like=True):
    """What a unit of the last layer adds to a logit."""

    unit: int
    activation: float
    weight: float


class ExplainedCandidate(msgspec.Struct, frozen=True):
    """One of the likeliest next ids."""

    id: int
    bias: float
    contributions: list[Contribution]


class Table(msgspec.Struct, frozen=True):
    """A matrix: float32, row by row."""

    num_rows: int
    num_columns: int
    data: bytes


class WeightsOfGate(msgspec.Struct, frozen=True):
    """The matrices of one sum; see GateWeights of the contract."""

    signal: Signal
    input: Table
    recurrent: Table
    bias: Table | None
    recurrent_bias: Table | None


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """The terms of one step.

    Attributes:
        symbols: what the logits are of: characters or labels. The ids of the candidates are places in them.
        gates_absent: why there are no gates and contributions; "": there are.
    """

    text: str
    position: int
    symbols: Sequence[str]
    layers: Sequence[ExplainedLayer]
    logits: Sequence[float]
    probabilities: Sequence[float]
    candidates: Sequence[ExplainedCandidate]
    gates_absent: str


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a model: for each layer its sums; the output's are a row for each symbol, and a column."""

    layers: Sequence[Sequence[WeightsOfGate]]
    output_weight: Table
    output_bias: Table
