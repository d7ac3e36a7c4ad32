"""grpc.health.v1: whether each service takes calls.

Not the servicer of grpcio-health-checking: there one watcher that leaves makes the others deaf, one that does not read
blocks every change, and open watches hold up the server's stop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    Context = grpc.aio.ServicerContext[Any, Any]


class Health(HealthServicer):  # type: ignore[misc]  # no stubs upstream
    """One status for all services of the server; NOT_SERVING until told."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({"", *services})
        self._status: int = HealthCheckResponse.NOT_SERVING
        self._is_closed = False
        self._changed = asyncio.Event()

    def set_serving(self, is_serving: bool) -> None:  # noqa: FBT001  the name says which
        """Change the status and tell all watchers."""
        self._status = HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End NOT_SERVING; watches end after hearing so."""
        self._is_closed = True
        self.set_serving(False)

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:  # noqa: N802
        """Return the status of a service; NOT_FOUND if the server has no such one."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return HealthCheckResponse(status=self._status)

    async def Watch(self, request: HealthCheckRequest, _: Context) -> AsyncGenerator[HealthCheckResponse, None]:  # noqa: N802
        """Tell the status of a service now and whenever it changes; SERVICE_UNKNOWN if there is no such one."""
        told = None
        while True:
            changed, status = self._changed, self._status_of(request.service)
            if status != told:
                told = status
                yield HealthCheckResponse(status=status)
            elif self._is_closed:
                return
            else:
                await changed.wait()

    def _status_of(self, service: str) -> int:
        unknown: int = HealthCheckResponse.SERVICE_UNKNOWN
        return self._status if service in self._services else unknown
