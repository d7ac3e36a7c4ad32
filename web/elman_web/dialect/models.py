"""`GET /v1/models`: what can be asked for."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from elman_client import Model
from elman_web.http.caller import Client

router = APIRouter()


class ModelAnswer(BaseModel):
    """A model. `created` is always 0: artefacts carry no date. `elman` is what the server says of it."""

    id: str
    object: Literal["model"] = "model"
    created: Literal[0] = 0
    owned_by: Literal["elman"] = "elman"
    elman: dict[str, Any]


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


@router.get("/models")
async def list_models(client: Client) -> ModelList:
    """List the served models."""
    return ModelList(data=[_answer(model) for model in await client.list_models()])


@router.get("/models/{model}")
async def get_model(model: str, client: Client) -> ModelAnswer:
    """Return one model."""
    return _answer(await client.get_model(model))


def _answer(model: Model) -> ModelAnswer:
    return ModelAnswer(id=model.name.removeprefix("models/"), elman=model.to_dict())
