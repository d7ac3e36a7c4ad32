"""What Envoy, as it is shipped, sends again when a server fails: only what cannot be done twice."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from elman_client import Client, UnavailableError
from tests.chaos.proxy import Proxy
from tests.e2e.wire import PATIENCE
from tests.envoy_process import EnvoyProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 5  # the first one and Envoy's four
KEY = "0b8f5d3c-6f0a-4c1e-9d53-2f1a7c4e8b60"


class Failing(grpc.GenericRpcHandler):
    """A server that does what it is asked, and then is lost before it answers, or answers UNAVAILABLE.

    Attributes:
        num_calls: of each method.
        way: the network before it, which breaks; None: the server answers.
    """

    def __init__(self) -> None:
        self.num_calls: Counter[str] = Counter()
        self.way: Proxy | None = None

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Count a call and fail."""
        method = handler_call_details.method
        if not method.startswith("/elman.v1."):
            return None

        def fail(_: bytes, context: grpc.ServicerContext) -> bytes:
            self.num_calls[method.rpartition("/")[2]] += 1
            if self.way is not None:
                self.way.reset()
                self.way.heal()
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is overloaded")

        return grpc.unary_unary_rpc_method_handler(fail)


class Healthy(HealthServicer):  # type: ignore[misc]  # no stubs upstream
    """Says that all is well."""

    def Check(self, _: Any, __: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        """Say so."""
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture(scope="module")
def failing() -> Failing:
    """The methods of a server that fails."""
    return Failing()


@pytest.fixture(scope="module")
def envoy(failing, tmp_path_factory) -> Iterator[EnvoyProcess]:
    """Envoy before that server."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((failing,))
    add_HealthServicer_to_server(Healthy(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    way = Proxy(port)
    with EnvoyProcess(tmp_path_factory.mktemp("envoy"), [way.port]) as process:
        failing.way = way
        yield process
    way.close()
    server.stop(0).wait()


@pytest.mark.parametrize(
    ("method", "key", "num_calls"),
    [
        ("GenerationService/Append", "", 1),
        ("GenerationService/Generate", "", 1),
        ("SessionService/CreateSession", "", 1),
        ("SessionService/RewindSession", "", 1),
        ("SessionService/DeleteSession", "", 1),
        ("GenerationService/Append", KEY, TRIES),
        ("GenerationService/Generate", KEY, TRIES),
        ("SessionService/ForkSession", KEY, TRIES),
        ("SessionService/GetSession", "", TRIES),
        ("SessionService/ListSessions", "", TRIES),
        ("ModelService/ListModels", "", TRIES),
        ("GenerationService/Score", "", TRIES),
        ("GenerationService/Cancel", "", TRIES),
    ],
)
def test_only_what_cannot_be_done_twice_is_sent_again(envoy, failing, method, key, num_calls) -> None:
    """Reads, and what has an idempotency key; an Append without one reached a server once."""
    failing.num_calls.clear()
    with grpc.insecure_channel(envoy.address) as channel:
        call: Any = channel.unary_unary(f"/elman.v1.{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=PATIENCE, metadata=(("idempotency-key", key),) if key else ())

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failing.num_calls == {method.rpartition("/")[2]: num_calls}


def test_the_clients_own_requests_have_a_key(envoy, failing) -> None:
    """An Append of the client has a request id, so Envoy sends it again."""
    failing.num_calls.clear()
    with Client(envoy.address, timeout=PATIENCE, retry_seconds=0) as client, pytest.raises(UnavailableError):
        client.session("mine").append("x")

    assert failing.num_calls == {"Append": TRIES}


def test_what_a_server_refuses_is_left_to_the_client(envoy, failing, monkeypatch) -> None:
    """OVERLOADED is UNAVAILABLE, and clients repeat it: Envoy would do so for each of their tries."""
    monkeypatch.setattr(failing, "way", None)
    failing.num_calls.clear()
    with grpc.insecure_channel(envoy.address) as channel:
        call: Any = channel.unary_unary("/elman.v1.ModelService/ListModels")
        with pytest.raises(grpc.RpcError, match="overloaded"):
            call(b"", timeout=PATIENCE)

    assert failing.num_calls == {"ListModels": 1}
