"""InspectionService: convert, call, convert."""
# ruff: noqa: N802, D102  the methods are named and documented by elman/v1/inspection.proto

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from elman.v1.inspection_pb2_grpc import InspectionServiceServicer
from elman_server.grpc.messages.inspection import (
    from_chunk,
    from_description,
    from_found,
    from_step,
    from_weights,
    to_explain,
    to_find,
    to_model,
    to_watch,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import grpc

    from elman.v1.inspection_pb2 import (
        DescribeStateRequest,
        DescribeStateResponse,
        ExplainStepRequest,
        ExplainStepResponse,
        FindUnitsRequest,
        FindUnitsResponse,
        GetWeightsRequest,
        GetWeightsResponse,
        WatchStateRequest,
        WatchStateResponse,
    )
    from elman_server.history.inspection import Inspection

    Context = grpc.aio.ServicerContext[Any, Any]


class InspectionService(InspectionServiceServicer):
    """Serves elman.v1.InspectionService over `Inspection`."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    async def DescribeState(self, request: DescribeStateRequest, _: Context) -> DescribeStateResponse:
        return from_description(await self._inspection.describe(to_model(request.model)))

    async def WatchState(self, request: WatchStateRequest, _: Context) -> AsyncGenerator[WatchStateResponse, None]:
        async with contextlib.aclosing(self._inspection.watch(to_watch(request))) as chunks:
            async for chunk in chunks:
                yield from_chunk(chunk)

    async def ExplainStep(self, request: ExplainStepRequest, _: Context) -> ExplainStepResponse:
        return from_step(await self._inspection.explain(to_explain(request)))

    async def FindUnits(self, request: FindUnitsRequest, _: Context) -> FindUnitsResponse:
        return from_found(await self._inspection.find(to_find(request)))

    async def GetWeights(self, request: GetWeightsRequest, _: Context) -> GetWeightsResponse:
        return from_weights(await self._inspection.weights(to_model(request.model)))
