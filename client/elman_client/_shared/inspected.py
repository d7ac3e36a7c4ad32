"""Protobuf messages of InspectionService into the client's own values."""

from typing import Any

from elman.v1 import inspection_pb2 as pb
from elman_client import _types as types
from elman_client._shared.values import member


def description(message: pb.DescribeStateResponse) -> types.StateDescription:
    """Convert what can be watched."""
    signals = (types.SignalInfo(_signal(info), info.layer, info.size) for info in message.signals)
    return types.StateDescription(tuple(signals), message.gates_absent)


def chunk(message: pb.WatchStateResponse) -> types.StateChunk:
    """Convert one chunk of what is watched."""
    return types.StateChunk(
        start=message.start,
        text=message.text,
        values=tuple(
            types.UnitValues(
                signal=_signal(part),
                layer=part.layer,
                units=tuple(part.units),
                values=types.Matrix(len(message.text), len(part.units), part.data),
            )
            for part in message.values
        ),
        changes=tuple(
            tuple(types.UnitChange(_signal(u), u.layer, u.unit, u.before, u.after) for u in changes.units)
            for changes in message.changes
        ),
    )


def step(message: pb.ExplainStepResponse) -> types.ExplainedStep:
    """Convert the terms of a step."""
    return types.ExplainedStep(
        text=message.text,
        position=message.position,
        layers=tuple(map(_layer, message.layers)),
        logits=tuple(message.logits),
        probabilities=tuple(message.probabilities),
        candidates=tuple(map(_candidate, message.candidates)),
        gates_absent=message.gates_absent,
    )


def found_units(message: pb.FindUnitsResponse) -> types.FoundUnits:
    """Convert the units that follow a labelling."""
    units = (
        types.FoundUnit(_signal(u), u.layer, u.unit, u.correlation, u.mean_labelled, u.mean_other)
        for u in message.units
    )
    return types.FoundUnits(tuple(units), message.labelled_count, message.character_count)


def weights(message: pb.GetWeightsResponse) -> types.Weights:
    """Convert a model's weights."""
    return types.Weights(
        layers=tuple(tuple(map(_gate_weights, layer.gates)) for layer in message.layers),
        output_weight=_matrix(message.output_weight),
        output_bias=_matrix(message.output_bias),
    )


def _layer(message: pb.LayerStep) -> types.LayerStep:
    return types.LayerStep(
        layer=message.layer,
        h_before=tuple(message.h_before),
        c_before=tuple(message.c_before),
        gates=tuple(map(_gate, message.gates)),
        h=tuple(message.h),
        c=tuple(message.c),
    )


def _gate(message: pb.GateStep) -> types.GateStep:
    return types.GateStep(
        signal=_signal(message),
        input=tuple(message.input),
        recurrent=tuple(message.recurrent),
        bias=tuple(message.bias),
        recurrent_bias=tuple(message.recurrent_bias),
        pre_activation=tuple(message.pre_activation),
        activation=tuple(message.activation),
    )


def _candidate(message: pb.CandidateStep) -> types.CandidateStep:
    contributions = (
        types.UnitContribution(c.unit, c.activation, c.weight, c.contribution) for c in message.contributions
    )
    return types.CandidateStep(message.text, message.logit, message.probability, message.bias, tuple(contributions))


def _gate_weights(message: pb.GateWeights) -> types.GateWeights:
    return types.GateWeights(
        signal=_signal(message),
        input=_matrix(message.input),
        recurrent=_matrix(message.recurrent),
        bias=_matrix(message.bias) if message.HasField("bias") else None,
        recurrent_bias=_matrix(message.recurrent_bias) if message.HasField("recurrent_bias") else None,
    )


def _matrix(message: pb.Matrix) -> types.Matrix:
    return types.Matrix(message.row_count, message.column_count, message.data)


def _signal(message: Any) -> types.Signal:
    return member(types.Signal, pb.Signal, "SIGNAL_", message.signal)
