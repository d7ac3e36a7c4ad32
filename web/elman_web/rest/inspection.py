"""`/v1/inspect`: what a network computes. The values of units stream as events; float32 in base64."""

from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, model_validator

from elman_client import AsyncClient, Signal, StateChunk, TextProperty, Units
from elman_web.dialect.requests import Name, SessionName, Strict
from elman_web.http.caller import Client
from elman_web.http.events import DONE, EventStream, event, while_connected

router = APIRouter(prefix="/inspect")
Position = Annotated[int, Field(ge=0, lt=2**63)]


class Place(Strict):
    """A text that is read from a model's initial state or after a session's state, or a session's transcript."""

    model: Name | None = None
    session: SessionName | None = None
    text: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_place(self) -> "Place":
        if (self.model is None) == (self.session is None):
            raise ValueError("send model or session")
        if self.model is not None and self.text is None:
            raise ValueError("a model needs a text")
        return self


class SomeUnits(Strict):
    """Units of one signal of a layer; none: all of them."""

    signal: Annotated[str, Field(pattern="^[A-Z]{1,20}$")]
    layer: Annotated[int, Field(ge=0, lt=2**31)] = 0
    units: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=8192, default_factory=list)]


class Watch(Place):
    """Which units to show, of the positions from `start` to before `end`."""

    units: Annotated[list[SomeUnits], Field(max_length=64, default_factory=list)]
    start: Position = 0
    end: Position | None = None
    num_changed: Annotated[int, Field(ge=0, le=64)] = 0


class Explain(Place):
    """Which step to explain; without a position the last one."""

    position: Position | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    num_candidates: Annotated[int, Field(ge=0, le=20)] = 5
    num_contributions: Annotated[int, Field(ge=0, le=64)] = 10


class Find(Place):
    """What units are compared with: what a regular expression matches, a property of the text, or positions."""

    pattern: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    text_property: Annotated[str, Field(pattern="^[A-Z_]{1,30}$")] | None = None
    positions: Annotated[list[Position], Field(min_length=1, max_length=100_000)] | None = None
    start: Position = 0
    end: Position | None = None
    num_units: Annotated[int, Field(ge=1, le=100)] = 10

    @model_validator(mode="after")
    def _check_labelling(self) -> "Find":
        if sum(each is not None for each in (self.pattern, self.text_property, self.positions)) != 1:
            raise ValueError("send one of pattern, text_property and positions")
        if self.text_property is not None and self.text_property not in set(TextProperty):
            raise ValueError(f"text_property is one of {', '.join(TextProperty)}")
        return self


class Described(BaseModel):
    """What can be watched of a model; `gates_absent` says why gates are not, or nothing."""

    signals: list[dict[str, Any]]
    gates_absent: str


class Explained(BaseModel):
    """Every term of one step; the client's `ExplainedStep` describes each."""

    text: str
    position: int
    layers: list[dict[str, Any]]
    logits: list[float]
    probabilities: list[float]
    candidates: list[dict[str, Any]]
    gates_absent: str


class Found(BaseModel):
    """The units that follow the labelling best, and how many characters were labelled and compared."""

    units: list[dict[str, Any]]
    num_labelled: int
    num_characters: int


class WeightsAnswer(BaseModel):
    """The matrices of a small model, row by row."""

    layers: list[list[dict[str, Any]]]
    output_weight: dict[str, Any]
    output_bias: dict[str, Any]


@router.get("/models/{model}")
async def describe(model: str, client: Client) -> Described:
    """Return what can be watched of a model."""
    return Described(**(await client.describe_state(model)).to_dict())


@router.get("/models/{model}/weights", response_model=WeightsAnswer)
async def weights(model: str, client: Client) -> Response:
    """Return the weights of a model of at most a million numbers."""
    return JSONResponse((await client.weights(model)).to_dict())


@router.post("/watch", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def watch(body: Watch, request: Request, client: Client) -> Response:
    """Stream the values of units after each character: an event for some characters, [DONE] after the last."""
    units = [Units(_signal(each.signal), each.layer, tuple(each.units)) for each in body.units]
    options: dict[str, Any] = {"start": body.start, "end": body.end, "num_changed": body.num_changed}
    if body.session is not None:
        chunks = client.session(body.session).watch(body.text, units=units, **options)
    else:
        chunks = client.watch(body.text or "", model=body.model or "", units=units, **options)
    return await EventStream.begin(request, _watched(chunks))


@router.post("/explain")
async def explain(body: Explain, request: Request, client: Client) -> Explained:
    """Return every term of the equations for one step."""
    options = body.model_dump(include={"position", "temperature", "num_candidates", "num_contributions"})
    return Explained(**(await while_connected(request, _call(client, "explain", body, options))).to_dict())


@router.post("/units")
async def find(body: Find, request: Request, client: Client) -> Found:
    """Return the units that follow a property of the text best."""
    options = body.model_dump(include={"pattern", "positions", "start", "end", "num_units"})
    options["text_property"] = None if body.text_property is None else TextProperty(body.text_property)
    return Found(**(await while_connected(request, _call(client, "find_units", body, options))).to_dict())


async def _call(client: AsyncClient, method: str, place: Place, options: dict[str, Any]) -> Any:
    if place.session is not None:
        return await getattr(client.session(place.session), method)(place.text, **options)
    return await getattr(client, method)(place.text, model=place.model, **options)


async def _watched(chunks: AsyncIterator[StateChunk]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):  # type: ignore[type-var] # it is a generator
        async for chunk in chunks:
            yield event(
                {
                    "start": chunk.start,
                    "text": chunk.text,
                    "values": [
                        {
                            "signal": each.signal,
                            "layer": each.layer,
                            "units": each.units,
                            "data": b64encode(each.values.data).decode(),
                        }
                        for each in chunk.values
                    ],
                    "changes": [[change.to_dict() for change in changes] for changes in chunk.changes],
                }
            )
    yield DONE


def _signal(name: str) -> Signal:
    return Signal(name) if name in set(Signal) else Signal.UNSPECIFIED
