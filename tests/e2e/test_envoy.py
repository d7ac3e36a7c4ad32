"""Envoy as it is shipped, before a real server: what it lets through, and what it keeps away."""

import http.client
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from elman.v1.generation_pb2 import GenerateRequest, Stopping
from elman.v1.model_pb2 import ListModelsRequest, ListModelsResponse
from elman_client import Client, ResourceExhaustedError
from tests.e2e.raw_http2 import RawCall
from tests.e2e.wire import PATIENCE, PROMPT, reference
from tests.envoy_process import CONFIG, EnvoyProcess, program

LIST_MODELS = "/elman.v1.ModelService/ListModels"
ORIGIN = "http://localhost:8080"


@pytest.fixture(scope="module")
def envoy(server_process, tmp_path_factory) -> Iterator[EnvoyProcess]:
    """Envoy before the shared server."""
    port = int(server_process.address.rpartition(":")[2])
    with EnvoyProcess(tmp_path_factory.mktemp("envoy"), [port]) as process:
        yield process


def asked(
    envoy: EnvoyProcess, method: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Send one HTTP/1.1 request; return status, headers and body of the answer."""
    connection = http.client.HTTPConnection(envoy.address, timeout=PATIENCE)
    connection.request(method, LIST_MODELS, body, headers)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_envoy_takes_the_shipped_configuration() -> None:
    """The file is valid as it stands, without a field that is to be removed."""
    done = subprocess.run([program(), "--mode", "validate", "-c", CONFIG], capture_output=True, text=True, check=False)
    assert (done.returncode, "Deprecated field" in done.stderr) == (0, False), done.stderr


def test_a_text_is_the_same_through_envoy(envoy, server_process) -> None:
    """Health, sessions and streams pass, and no character is another one."""
    with Client(envoy.address, timeout=PATIENCE) as through, Client(server_process.address, timeout=PATIENCE) as direct:
        assert through.is_serving()
        assert reference(through, model="gru") == reference(direct, model="gru")
        session = through.create_session("gru", seed=1)
        assert len("".join(session.generate(PROMPT, max_chars=100))) == 100
        assert direct.get_session(session.name).info.position == len(PROMPT) + 100


def test_a_flood_is_refused_as_a_quota(server_process, tmp_path) -> None:
    """Past its calls a connection gets RESOURCE_EXHAUSTED, which no client repeats; another connection has its own."""
    port = int(server_process.address.rpartition(":")[2])
    with EnvoyProcess(tmp_path, [port], burst=3) as envoy:
        for _ in range(2):
            with Client(envoy.address, timeout=PATIENCE) as client:
                for _ in range(3):
                    client.list_models()
                with pytest.raises(ResourceExhaustedError):
                    client.list_models()


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_no_grpc_is_answered_by_envoy(envoy, method, kind) -> None:
    """415, whatever it is; no server sees it, so none is held to have failed."""
    assert asked(envoy, method, {"content-type": kind} if kind else {})[0] == 415
    assert envoy.num_healthy() == 1


def test_other_encodings_are_answered_by_envoy(envoy) -> None:
    """UNIMPLEMENTED, which is 12; no server sees it."""
    status, headers, _ = asked(envoy, "POST", {"content-type": "application/grpc+json"})
    assert (status, headers["grpc-status"]) == (200, "12")
    assert envoy.num_healthy() == 1


def test_browsers_speak_grpc_web(envoy) -> None:
    """A page's call is answered with the message and, behind it, the trailers."""
    message = ListModelsRequest().SerializeToString()
    body = struct.pack(">BI", 0, len(message)) + message
    sent = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": ORIGIN}
    status, headers, answer = asked(envoy, "POST", sent, body)
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "grpc-status" in headers["access-control-expose-headers"]
    kind, size = struct.unpack(">BI", answer[:5])
    models = ListModelsResponse.FromString(answer[5 : 5 + size]).models
    assert kind == 0
    assert "models/gru" in {model.name for model in models}
    assert answer[5 + size] == 0x80
    assert b"grpc-status:0" in answer[5 + size :]


def test_browsers_may_ask_first(envoy) -> None:
    """A preflight from a page of this machine is answered with what is allowed; another page is not told so."""
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-grpc-web"}
    status, headers, _ = asked(envoy, "OPTIONS", asks | {"origin": ORIGIN})
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert {"x-grpc-web", "x-session-id"} <= set(headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-origin" not in asked(envoy, "OPTIONS", asks | {"origin": "https://a.example"})[1]


def test_readers_that_do_not_read_hold_up_nobody(envoy) -> None:
    """Their streams are paused, and share a connection with the one that goes on."""
    request = GenerateRequest(
        model="models/gru", prompt=PROMPT, stopping=Stopping(max_chars=20_000), chunk_chars=1
    ).SerializeToString()
    with ExitStack() as stack, Client(envoy.address, timeout=PATIENCE) as client:
        for _ in range(20):
            stack.enter_context(RawCall(envoy.address, request))
        assert len("".join(client.generate(PROMPT, model="gru", max_chars=20_000))) == 20_000
