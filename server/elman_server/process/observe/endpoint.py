"""The port of the operator: /metrics for Prometheus, /healthz and /readyz for whatever restarts and routes.

Plain HTTP in a thread, apart from the port of the callers: it needs no TLS, no token and no place among the streams.
Nothing of a session is on it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client.exposition import choose_encoder

from elman_server.domain.errors import SettingsError
from elman_server.process.observe.counters import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

LIVE_SECONDS: Final = 2.0  # a loop that does not answer for that long is dead,
REQUEST_SECONDS: Final = 5.0  # and a caller that does not send its request, too
MAX_CONNECTIONS: Final = 16
POLL_SECONDS: Final = 0.1  # until the thread sees a stop
LAG_SECONDS: Final = 0.5  # between two looks at how late the loop is
_PLAIN: Final = "text/plain; charset=utf-8"

log = structlog.get_logger(__name__)


class Endpoint:
    """Answers HTTP from `start` to `stop`.

    Args:
        listen: `host:port`.
        registry: what /metrics shows.
        is_ready: whether health is SERVING.

    Attributes:
        address: where it listens, with the real port once started.
    """

    def __init__(self, listen: str, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        self.address = listen
        self._registry = registry
        self._is_ready = is_ready
        self._server: _Server | None = None
        self._lag: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, and answer from now on.

        Raises:
            SettingsError: the address is in use or not of this machine.
        """
        host, _, port = self.address.rpartition(":")
        loop = asyncio.get_running_loop()

        class Handler(_Handler):
            registry = self._registry
            is_ready = staticmethod(self._is_ready)
            is_alive = staticmethod(lambda: _answers(loop))

        try:
            self._server = _Server((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {self.address}: {error.strerror}; choose another with --metrics-listen"
            ) from error
        self.address = f"{host}:{self._server.server_port}"
        threading.Thread(
            target=self._server.serve_forever, args=[POLL_SECONDS], name="elman-metrics", daemon=True
        ).start()
        self._lag = asyncio.create_task(_watch_lag(), name="watch the loop")
        log.info("metrics_served", address=self.address)

    async def stop(self) -> None:
        """Close the port."""
        if self._lag is not None:
            self._lag.cancel()
        if self._server is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a caller that sends nothing holds up no stop
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Serve a connection in a thread of its own; close it at once if there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of callers that leave."""


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    is_ready: Callable[[], bool]
    is_alive: Callable[[], bool]
    timeout = REQUEST_SECONDS
    server_version = "elman"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = _encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.registry), content_type)
        elif path == "/healthz":
            self._tell(self.is_alive(), "alive", "the event loop does not answer")
        elif path == "/readyz":
            self._tell(self.is_alive() and self.is_ready(), "ready", "health is NOT_SERVING")
        else:
            self._answer(404, b"there are /metrics, /healthz and /readyz\n", _PLAIN)

    do_HEAD = do_GET  # noqa: N815  http.server's name

    def _tell(self, holds: bool, yes: str, no: str) -> None:  # noqa: FBT001
        self._answer(200 if holds else 503, f"{yes if holds else no}\n".encode(), _PLAIN)

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every few seconds."""


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return what writes the format that a caller asks for; the plain one if nobody knows what it asks for."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # the library compares words with numbers
        return choose_encoder("")


def _answers(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the event loop runs what it is given."""
    answered: Future[None] = Future()
    try:
        loop.call_soon_threadsafe(answered.set_result, None)
        answered.result(LIVE_SECONDS)
    except (RuntimeError, TimeoutError):  # it is closed
        return False
    return True


async def _watch_lag() -> None:
    """Count how much later than asked for the loop does something."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        COUNTERS.loop_lag.add(max(0.0, clock() - due))
