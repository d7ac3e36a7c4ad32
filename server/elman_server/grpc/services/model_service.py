"""ModelService: convert, call, convert."""
# ruff: noqa: N802, D102  the methods are named and documented by elman/v1/model.proto

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from elman.v1.model_pb2 import (
    EncodeTextRequest,
    EncodeTextResponse,
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
)
from elman.v1.model_pb2_grpc import ModelServiceServicer
from elman_server.domain.requests import check_text
from elman_server.domain.vocabulary import Unknown
from elman_server.grpc.messages.build import from_encoded, from_model
from elman_server.grpc.messages.names import model_version
from elman_server.models.registry import order
from elman_server.sessions.pages import PageToken, page_limit

if TYPE_CHECKING:
    import grpc

    from elman_server.models.registry import Models

    Context = grpc.aio.ServicerContext[Any, Any]

_SKIP: Final = Unknown(skip=True)
_SCOPE: Final = "models"  # a token of another list is not valid here


class ModelService(ModelServiceServicer):
    """Serves elman.v1.ModelService over `Models`."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ListModels(self, request: ListModelsRequest, _: Context) -> ListModelsResponse:
        limit, models = page_limit(request.page_size), self._models.list()
        after = PageToken.decode(request.page_token, _SCOPE)
        name, version = model_version("page_token", after) if after else ("", None)
        start = bisect_right([order(info.name, info.version) for info in models], order(name, version or ""))
        page = models[start : start + limit]
        has_more = start + limit < len(models)
        return ListModelsResponse(
            models=[from_model(info) for info in page],
            next_page_token=PageToken.encode(page[-1].resource, _SCOPE) if has_more else "",
        )

    async def GetModel(self, request: GetModelRequest, _: Context) -> GetModelResponse:
        info = self._models.get(*model_version("name", request.name))
        return GetModelResponse(model=from_model(info))

    async def EncodeText(self, request: EncodeTextRequest, _: Context) -> EncodeTextResponse:
        info = self._models.get(*model_version("model", request.model))
        check_text("text", request.text, info.limits, empty=True)
        ids = info.vocabulary.encode(request.text, "text", _SKIP)
        return from_encoded(ids, info.vocabulary.unknown(request.text))
