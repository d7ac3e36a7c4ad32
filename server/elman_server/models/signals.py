"""Signals: which quantities a model's state and gates hold, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elman_format.metadata import STATES
from elman_server.domain.inspection import Signal, SignalInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The sums of each cell, in the order of the equations, and the artefact's name for them.
SUMS: Final[Mapping[str, Mapping[Signal, str]]] = {
    "elman": {Signal.H: "hidden"},
    "gru": {signal: signal.value for signal in (Signal.RESET, Signal.UPDATE, Signal.CANDIDATE)},
    "lstm": {signal: signal.value for signal in (Signal.INPUT, Signal.FORGET, Signal.CELL, Signal.OUTPUT)},
}


def state_signals(cell: str, num_layers: int, sizes: Sequence[int]) -> list[SignalInfo]:
    """Return what each state tensor is, in the model's order; `sizes` are those of one row of each.

    If the cell is not known, or the tensors are not one a layer and kind, each is the H of a layer of its own.
    """
    kinds = [Signal(kind) for kind in STATES.get(cell, ())]
    if not kinds or len(sizes) != num_layers * len(kinds):
        return [SignalInfo(Signal.H, layer, size) for layer, size in enumerate(sizes)]
    return [SignalInfo(kinds[index % len(kinds)], index // len(kinds), size) for index, size in enumerate(sizes)]


def gate_signals(cell: str, num_layers: int, hidden_size: int) -> list[SignalInfo]:
    """Return the gates of a known cell: signals that are not part of the state."""
    gates = [signal for signal in SUMS.get(cell, ()) if signal is not Signal.H]
    return [SignalInfo(signal, layer, hidden_size) for layer in range(num_layers) for signal in gates]
