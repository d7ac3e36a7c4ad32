"""Calls that show what a network computes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from elman.v1 import inspection_pb2 as pb
from elman_client import _types as types
from elman_client._shared import inspected
from elman_client._shared.fields import fill, invalid, wrong_type
from elman_client._shared.names import model_name
from elman_client._shared.operation import Operation, operation
from elman_client._shared.turns import unknown_policy

_SERVICE = "elman.v1.InspectionService"


def describe(model: str) -> Operation[types.StateDescription]:
    """Return what can be watched of a model."""
    request = pb.DescribeStateRequest()
    fill(request, model=model_name(model))
    return operation(f"{_SERVICE}/DescribeState", request, pb.DescribeStateResponse, inspected.description)


def watch(
    text: str | None,
    *,
    units: Sequence[types.Units],
    start: int,
    end: int | None,
    num_changed: int,
    unknown_characters: types.UnknownPolicy | None,
    **target: str,
) -> Operation[types.StateChunk]:
    """Watch units on ``session=`` or ``model=``; the answer is a stream."""
    request = pb.WatchStateRequest()
    fill(
        request,
        text=text,
        units=_units(units),
        start=start,
        end=end,
        changed_count=num_changed,
        unknown_characters=unknown_policy(unknown_characters),
        **target,
    )
    return _watching(request)


def _watching(request: pb.WatchStateRequest) -> Operation[types.StateChunk]:
    def after(chunk: types.StateChunk) -> Operation[types.StateChunk]:
        rest = pb.WatchStateRequest()
        rest.CopyFrom(request)
        rest.start = chunk.start + len(chunk.text)
        return _watching(rest)

    path = f"{_SERVICE}/WatchState"
    first = operation(path, request, pb.WatchStateResponse, inspected.chunk, session=request.session)
    return replace(first, after=after)


def explain(
    text: str | None,
    *,
    position: int | None,
    temperature: float | None,
    num_candidates: int,
    num_contributions: int,
    unknown_characters: types.UnknownPolicy | None,
    **target: str,
) -> Operation[types.ExplainedStep]:
    """Explain a step on ``session=`` or ``model=``."""
    request = pb.ExplainStepRequest()
    fill(
        request,
        text=text,
        position=position,
        temperature=temperature,
        candidate_count=num_candidates,
        contribution_count=num_contributions,
        unknown_characters=unknown_policy(unknown_characters),
        **target,
    )
    return _operation("ExplainStep", request, pb.ExplainStepResponse, inspected.step, target)


def find_units(
    text: str | None,
    *,
    pattern: str | None,
    text_property: types.TextProperty | None,
    positions: Iterable[int] | None,
    start: int,
    end: int | None,
    num_units: int,
    unknown_characters: types.UnknownPolicy | None,
    **target: str,
) -> Operation[types.FoundUnits]:
    """Compare the units with a labelling, on ``session=`` or ``model=``."""
    if sum(given is not None for given in (pattern, text_property, positions)) != 1:
        raise invalid("pattern", "set exactly one of pattern, text_property and positions")
    request = pb.FindUnitsRequest()
    fill(
        request,
        text=text,
        pattern=pattern,
        start=start,
        end=end,
        unit_count=num_units,
        unknown_characters=unknown_policy(unknown_characters),
        **target,
    )
    if text_property is not None:
        name = _member("text_property", types.TextProperty, text_property)
        request.property = pb.TextProperty.Value(f"TEXT_PROPERTY_{name}")
    if positions is not None:
        request.positions.SetInParent()
        fill(request.positions, positions=_integers("positions", positions))
    return _operation("FindUnits", request, pb.FindUnitsResponse, inspected.found_units, target)


def weights(model: str) -> Operation[types.Weights]:
    """Return a model's weights."""
    request = pb.GetWeightsRequest()
    fill(request, model=model_name(model))
    return operation(f"{_SERVICE}/GetWeights", request, pb.GetWeightsResponse, inspected.weights)


def _operation(method: str, request: Any, reply: type[Any], convert: Any, target: dict[str, str]) -> Operation[Any]:
    return operation(f"{_SERVICE}/{method}", request, reply, convert, session=target.get("session", ""))


def _units(units: Sequence[types.Units]) -> list[pb.Units]:
    messages = []
    for each in units:
        if not isinstance(each, types.Units):
            raise wrong_type("each of units", "a Units", each)
        message = pb.Units(signal=pb.Signal.Value(f"SIGNAL_{_member('units.signal', types.Signal, each.signal)}"))
        fill(message, layer=each.layer, units=_integers("units.units", each.units))
        messages.append(message)
    return messages


def _member(field: str, kind: type[StrEnum], value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type(field, f"a {kind.__name__}", value)
    if value not in tuple(kind):
        raise invalid(field, f"is one of {', '.join(kind)}")
    return str(value)


def _integers(field: str, values: Iterable[int]) -> list[int]:
    numbers = list(values)
    for each in numbers:
        if isinstance(each, bool) or not hasattr(each, "__index__"):
            raise wrong_type(f"each of {field}", "an int", each)
    return numbers
