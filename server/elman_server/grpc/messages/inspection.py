"""Parses and builds the messages of InspectionService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elman.v1 import inspection_pb2 as messages
from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.inspection import (
    ExplainRequest,
    FindRequest,
    Signal,
    Source,
    TextProperty,
    Units,
    WatchRequest,
)
from elman_server.domain.requests import Target
from elman_server.grpc.messages.names import model_version
from elman_server.grpc.messages.parse import to_target, to_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elman_server.domain.inspection import (
        ExplainedCandidate,
        ExplainedGate,
        ExplainedLayer,
        ExplainedStep,
        FoundUnits,
        StateChunk,
        StateDescription,
        Table,
        Weights,
        WeightsOfGate,
    )

_SIGNALS: Final = {messages.Signal.Value(f"SIGNAL_{signal.name}"): signal for signal in Signal}
_NUMBERS: Final = {signal: number for number, signal in _SIGNALS.items()}
_PROPERTIES: Final = {messages.TextProperty.Value(f"TEXT_PROPERTY_{known.name}"): known for known in TextProperty}


def to_model(name: str) -> Target:
    """Return the model that a caller names."""
    model, version = model_version("model", name)
    return Target(model=model, version=version)


def to_watch(request: messages.WatchStateRequest) -> WatchRequest:
    """Return what a caller wants to watch."""
    return WatchRequest(
        source=_to_source(request),
        units=tuple(_to_units(index, units) for index, units in enumerate(request.units)),
        start=request.start,
        end=request.end if request.HasField("end") else None,
        num_changed=request.changed_count,
    )


def to_explain(request: messages.ExplainStepRequest) -> ExplainRequest:
    """Return the step that a caller wants explained."""
    return ExplainRequest(
        source=_to_source(request),
        position=request.position if request.HasField("position") else None,
        temperature=request.temperature if request.HasField("temperature") else 1.0,
        num_candidates=request.candidate_count,
        num_contributions=request.contribution_count,
    )


def to_find(request: messages.FindUnitsRequest) -> FindRequest:
    """Return the labelling that a caller wants compared."""
    labelling: str | TextProperty | tuple[int, ...]
    match request.WhichOneof("labelling"):
        case "pattern":
            labelling = request.pattern
        case "property":
            if request.property not in _PROPERTIES:
                raise InvalidFieldError(
                    "property", f"is {request.property}, not a value of TextProperty; use a named one"
                )
            labelling = _PROPERTIES[request.property]
        case "positions":
            labelling = tuple(request.positions.positions)
        case _:
            raise InvalidFieldError("labelling", "is not set; set pattern, property or positions")
    return FindRequest(
        source=_to_source(request),
        labelling=labelling,
        start=request.start,
        end=request.end if request.HasField("end") else None,
        num_units=request.unit_count,
    )


def _to_source(
    request: messages.WatchStateRequest | messages.ExplainStepRequest | messages.FindUnitsRequest,
) -> Source:
    return Source(to_target(request), request.text, to_unknown(request.unknown_characters))


def _to_units(index: int, units: messages.Units) -> Units:
    if units.signal not in _SIGNALS:
        raise InvalidFieldError(f"units[{index}].signal", f"is {units.signal}, not a value of Signal; use a named one")
    return Units(_SIGNALS[units.signal], units.layer, tuple(units.units))


def from_description(description: StateDescription) -> messages.DescribeStateResponse:
    """Return what can be watched."""
    signals = [
        messages.SignalInfo(signal=_NUMBERS[info.signal], layer=info.layer, size=info.size)
        for info in description.signals
    ]
    return messages.DescribeStateResponse(signals=signals, gates_absent=description.gates_absent)


def from_chunk(chunk: StateChunk) -> messages.WatchStateResponse:
    """Return one message of a WatchState stream."""
    return messages.WatchStateResponse(
        start=chunk.start,
        text=chunk.text,
        values=[
            messages.UnitValues(signal=_NUMBERS[shown.signal], layer=shown.layer, units=shown.units, data=data)
            for shown, data in zip(chunk.units, chunk.values, strict=True)
        ],
        changes=[
            messages.UnitChanges(
                units=[
                    messages.UnitChange(
                        signal=_NUMBERS[c.signal], layer=c.layer, unit=c.unit, before=c.before, after=c.after
                    )
                    for c in changes
                ]
            )
            for changes in chunk.changes
        ],
    )


def from_step(step: ExplainedStep) -> messages.ExplainStepResponse:
    """Return the terms of a step."""
    return messages.ExplainStepResponse(
        text=step.text,
        position=step.position,
        layers=[_from_layer(index, layer) for index, layer in enumerate(step.layers)],
        logits=step.logits,
        probabilities=step.probabilities,
        candidates=[_from_candidate(candidate, step) for candidate in step.candidates],
        gates_absent=step.gates_absent,
    )


def from_found(found: FoundUnits) -> messages.FindUnitsResponse:
    """Return the units that follow a labelling."""
    return messages.FindUnitsResponse(
        units=[
            messages.FoundUnit(
                signal=_NUMBERS[unit.signal],
                layer=unit.layer,
                unit=unit.unit,
                correlation=unit.correlation,
                mean_labelled=unit.mean_labelled,
                mean_other=unit.mean_other,
            )
            for unit in found.units
        ],
        labelled_count=found.num_labelled,
        character_count=found.num_characters,
    )


def from_weights(weights: Weights) -> messages.GetWeightsResponse:
    """Return a model's weights."""
    return messages.GetWeightsResponse(
        layers=[messages.LayerWeights(gates=_from_gates(layer)) for layer in weights.layers],
        output_weight=_from_table(weights.output_weight),
        output_bias=_from_table(weights.output_bias),
    )


def _from_layer(index: int, layer: ExplainedLayer) -> messages.LayerStep:
    return messages.LayerStep(
        layer=index,
        h_before=layer.h_before,
        c_before=layer.c_before,
        gates=[_from_gate(gate) for gate in layer.gates],
        h=layer.h,
        c=layer.c,
    )


def _from_gate(gate: ExplainedGate) -> messages.GateStep:
    return messages.GateStep(
        signal=_NUMBERS[gate.signal],
        input=gate.input,
        recurrent=gate.recurrent,
        bias=gate.bias,
        recurrent_bias=gate.recurrent_bias,
        pre_activation=gate.pre_activation,
        activation=gate.activation,
    )


def _from_candidate(candidate: ExplainedCandidate, step: ExplainedStep) -> messages.CandidateStep:
    return messages.CandidateStep(
        text=step.symbols[candidate.id],
        logit=step.logits[candidate.id],
        probability=step.probabilities[candidate.id],
        bias=candidate.bias,
        contributions=[
            messages.UnitContribution(
                unit=c.unit, activation=c.activation, weight=c.weight, contribution=c.activation * c.weight
            )
            for c in candidate.contributions
        ],
    )


def _from_gates(layer: Sequence[WeightsOfGate]) -> list[messages.GateWeights]:
    return [
        messages.GateWeights(
            signal=_NUMBERS[gate.signal],
            input=_from_table(gate.input),
            recurrent=_from_table(gate.recurrent),
            bias=None if gate.bias is None else _from_table(gate.bias),
            recurrent_bias=None if gate.recurrent_bias is None else _from_table(gate.recurrent_bias),
        )
        for gate in layer
    ]


def _from_table(table: Table) -> messages.Matrix:
    return messages.Matrix(row_count=table.num_rows, column_count=table.num_columns, data=table.data)
