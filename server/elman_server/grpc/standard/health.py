"""grpc.health.v1: whether each service takes calls.

Not the servicer of grpcio-health-checking: there one watcher that leaves makes the others deaf, one that does not read
blocks every change, and open watches hold up the server's stop.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    Context = grpc.aio.ServicerContext[Any, Any]


class Need(enum.Enum):
    """What must hold for a service to be SERVING."""

    OPEN = "open"  # the models are loaded, and the server does not drain
    STORE = "store"  # the session store answers
    ENGINES = "engines"  # every model has an engine that serves, or is being restarted


class Health(HealthServicer):  # type: ignore[misc]  # no stubs upstream
    """A status for each service, from what it needs; what is not known yet does not hold.

    Args:
        needs: of each service, by its full name; `""` is the server as a whole.
    """

    def __init__(self, needs: Mapping[str, frozenset[Need]]) -> None:
        self._needs = needs
        self._holding: frozenset[Need] = frozenset()
        self._is_closed = False
        self._changed = asyncio.Event()

    def set(self, need: Need, holds: bool) -> None:  # noqa: FBT001  the name says which
        """Note whether a need holds, and let all watchers know."""
        self._holding = self._holding | {need} if holds else self._holding - {need}
        self._changed.set()
        self._changed = asyncio.Event()

    def is_serving(self, service: str) -> bool:
        """Whether a service is SERVING."""
        return bool(self._status_of(service) == HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Be NOT_SERVING for good; watches end after that message."""
        self._is_closed = True
        self.set(Need.OPEN, False)

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:  # noqa: N802
        """Return the status of a service; NOT_FOUND if the server has no such one."""
        if request.service not in self._needs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return HealthCheckResponse(status=self._status_of(request.service))

    async def Watch(self, request: HealthCheckRequest, _: Context) -> AsyncGenerator[HealthCheckResponse, None]:  # noqa: N802
        """Send the status of a service now and whenever it changes; SERVICE_UNKNOWN if it does not exist."""
        sent = None
        while True:
            changed, status = self._changed, self._status_of(request.service)
            if status != sent:
                sent = status
                yield HealthCheckResponse(status=status)
            elif self._is_closed:
                return
            else:
                await changed.wait()

    def list_handler(self) -> grpc.GenericRpcHandler:
        """Return what answers List: the status of every service, in one message."""
        handler: Any = grpc.unary_unary_rpc_method_handler(self._list)
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"List": handler})

    async def _list(self, _: bytes, __: Context) -> bytes:
        return b"".join(_entry(service, self._status_of(service)) for service in sorted(self._needs))

    def _status_of(self, service: str) -> int:
        status: int = HealthCheckResponse.SERVICE_UNKNOWN
        if service in self._needs:
            holds = self._needs[service] <= self._holding
            status = HealthCheckResponse.SERVING if holds else HealthCheckResponse.NOT_SERVING
        return status


def _entry(service: str, status: int) -> bytes:
    """Return one entry of HealthListResponse.statuses, encoded: `map<string, HealthCheckResponse> statuses = 1`.

    Encoded by hand: the messages of List come only with a grpcio-health-checking that needs a newer protobuf than ours.
    """
    entry = b"".join(
        _bytes_field(number, value)
        for number, value in enumerate((service.encode(), HealthCheckResponse(status=status).SerializeToString()), 1)
    )
    return _bytes_field(1, entry)


def _bytes_field(number: int, value: bytes) -> bytes:
    # Tag with wire type 2, then the length, which takes one byte: names of services are short.
    assert len(value) < 0x80  # noqa: PLR2004  the first length of two bytes
    return bytes([number << 3 | 2, len(value)]) + value
