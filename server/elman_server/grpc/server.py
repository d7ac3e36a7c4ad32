"""The gRPC server: services, health and reflection on one port."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from elman.v1 import generation_pb2, inspection_pb2, model_pb2, session_pb2
from elman.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from elman.v1.inspection_pb2_grpc import add_InspectionServiceServicer_to_server
from elman.v1.model_pb2_grpc import add_ModelServiceServicer_to_server
from elman.v1.session_pb2_grpc import add_SessionServiceServicer_to_server
from elman_server.domain.errors import SettingsError
from elman_server.grpc.access.certificates import credentials
from elman_server.grpc.interceptors import CallInterceptor
from elman_server.grpc.services.generation_service import GenerationService
from elman_server.grpc.services.inspection_service import InspectionService
from elman_server.grpc.services.model_service import ModelService
from elman_server.grpc.services.session_service import SessionService
from elman_server.grpc.standard.health import Health, Need
from elman_server.grpc.standard.reflection import add_reflection

if TYPE_CHECKING:
    from elman_server.grpc.access.door import Door
    from elman_server.history.inspection import Inspection
    from elman_server.history.service import History
    from elman_server.models.registry import Models
    from elman_server.process.settings import Settings
    from elman_server.sessions.service import Sessions
    from elman_server.turns.service import Turns

_SERVICES: Final = [
    service.full_name
    for module in (generation_pb2, model_pb2, session_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]
_INSPECTION: Final = inspection_pb2.DESCRIPTOR.services_by_name["InspectionService"].full_name
# A fork or a replay needs an engine, too; but every other method of its service does not.
_NEEDS: Final = {
    "": frozenset(Need),
    "elman.v1.SessionService": frozenset({Need.OPEN, Need.STORE}),
    "elman.v1.GenerationService": frozenset(Need),
    "elman.v1.ModelService": frozenset({Need.OPEN}),
}
_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# Far above any burst: beyond its own small default gRPC cancels calls at random; the server refuses with a reason.
_MAX_PENDING: Final = 100_000
_MAX_REQUEST_BYTES: Final = 1 << 16  # beside a prompt, whose characters take up to four bytes each
_log = structlog.get_logger()


class GrpcServer:
    """Serves the domain over gRPC from `start` to `stop`.

    Attributes:
        address: where it listens, with the real port once started.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        turns: Turns,
        models: Models,
        history: History,
        *,
        inspection: Inspection | None = None,
        door: Door | None = None,
    ) -> None:
        self.address = settings.listen
        self._settings = settings
        self._sessions = sessions
        self._turns = turns
        self._models = models
        self._history = history
        self._inspection = inspection
        self._door = door
        needs = _NEEDS if inspection is None else _NEEDS | {_INSPECTION: frozenset(Need)}
        self._health = Health(needs)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen, with health NOT_SERVING; return the port (of a `unix:` address a meaningless number above 0).

        Raises:
            SettingsError: the address is in use or not of this machine, or the certificate cannot be used.
        """
        self._server = server = grpc.aio.server(
            interceptors=[CallInterceptor(self._settings.stalled_seconds, self._door)], options=_options(self._settings)
        )
        add_SessionServiceServicer_to_server(SessionService(self._sessions, self._history), server)
        add_GenerationServiceServicer_to_server(GenerationService(self._turns, self._settings.max_streams), server)
        add_ModelServiceServicer_to_server(ModelService(self._models), server)
        if self._inspection is not None:
            add_InspectionServiceServicer_to_server(InspectionService(self._inspection), server)
        server.add_generic_rpc_handlers([self._health.list_handler()])  # first: so it is used if there are two
        add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            shown = [_HEALTH] if self._inspection is None else [_INSPECTION, _HEALTH]
            add_reflection([*_SERVICES, *shown], server)
        port = _listen(server, self._settings)
        await server.start()
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        return port

    @property
    def is_ready(self) -> bool:
        """Whether health is SERVING for the server as a whole."""
        return self._health.is_serving("")

    async def set_serving(self, is_serving: bool) -> None:  # noqa: FBT001  the name says which
        """Report to health and the log whether the server accepts calls."""
        self._health.set(Need.OPEN, is_serving)
        num_models = len(self._models.list())
        models = f"{num_models} model{'' if num_models == 1 else 's'}"
        _log.info(f"{'serving' if is_serving else 'no longer serving'} {models} on {self.address}")

    def set_store(self, is_reachable: bool) -> None:  # noqa: FBT001  the name says which
        """Let health know whether the session store answers."""
        self._health.set(Need.STORE, is_reachable)

    def set_engines(self, are_well: bool) -> None:  # noqa: FBT001  the name says which
        """Let health know whether every model has an engine that serves, or is being restarted."""
        self._health.set(Need.ENGINES, are_well)

    async def stop(self, grace: float) -> None:
        """Accept no new call and end; calls that still run after `grace` seconds are cancelled."""
        self._health.close()
        if self._server is not None:
            await self._server.stop(grace)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # A part of a request is kept until the rest comes, and callers need not send it.
        (
            "grpc.max_receive_message_length",
            min(settings.max_message_bytes, 4 * settings.max_prompt_chars + _MAX_REQUEST_BYTES),
        ),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_connection_streams),
        ("grpc.server.max_pending_requests", _MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
        # gRPC must not cancel a call, without a reason, because the loop was too busy to accept it for 30 s.
        ("grpc.server_max_unrequested_time_in_server", 3600),
        # Otherwise a second server on the port would get half of the calls, without a warning.
        ("grpc.so_reuseport", 0),
        # Find callers that vanished: their streams occupy the engine. Clients and proxies may ping every second.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # what gRPC goes by: a minute by default, whatever the line above says
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ]


def _listen(server: grpc.aio.Server, settings: Settings) -> int:
    secured = credentials(settings)
    if settings.listen.startswith("unix:") and _is_in_use(settings.listen.removeprefix("unix:")):
        raise SettingsError(f"cannot listen on {settings.listen}: it is in use; choose another with --listen")
    try:
        if secured is None:
            return server.add_insecure_port(settings.listen)
        return server.add_secure_port(settings.listen, secured)
    except RuntimeError:
        raise SettingsError(
            f"cannot listen on {settings.listen}: the address is in use or not of this machine; choose another with "
            "--listen"
        ) from None


def _is_in_use(path: str) -> bool:
    """Whether a process accepts connections at a path; gRPC itself would take the path away."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (TimeoutError, BlockingIOError):  # its queue is full
            return True
        except OSError:
            return False
        return True
