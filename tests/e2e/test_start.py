"""How a real server starts, where it listens, and what it tells of itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from elman.v1 import generation_pb2 as messages
from elman.v1 import sampling_pb2
from elman_client import CharacterNotInVocabularyError, Client, UnavailableError
from elman_server.engine.core.__main__ import NICENESS
from tests.e2e.wire import PATIENCE, Refusal, one_shot, reference, refused, wire_to
from tests.server_process import ServerProcess, refused_start
from tests.services import need

_SECRET = "my voice is my passport"


def test_a_taken_port_stops_the_start(server_process, models):
    """A second server on the port does not share it, but says so in one line and exits 1."""
    address = server_process.address
    expected = (
        f"elman-server: cannot listen on {address}: the address is in use or not of this machine; "
        "choose another with --listen"
    )

    assert refused_start("--listen", address, "--models", str(models)) == (1, [expected])


def test_a_certificate_switches_tls_on(models, tmp_path: Path):
    """With certificate and key the server speaks TLS and nothing else."""
    need("openssl", is_there=shutil.which("openssl") is not None)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    flags = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    with ServerProcess(models, *flags) as process:
        with Client(process.address, tls=True, root_certificates=certificate, timeout=PATIENCE) as client:
            assert client.is_serving()
            assert len(reference(client, model="gru")) == 100
        with Client(process.address, timeout=PATIENCE) as plain, pytest.raises(UnavailableError):
            plain.list_models()


def test_a_unix_socket_serves_as_a_port_does(odd_server, references):
    """The client reaches `unix:` addresses too, and finds the same text there."""
    with Client(odd_server.address) as client:
        assert reference(client, model="gru") == references["gru"]


def test_reflection_tells_the_contract(server_process, odd_server):
    """By default a caller can ask for the services; switched off, the method is not there."""

    def services(address: str) -> set[str]:
        with wire_to(address) as wire:
            stub = ServerReflectionStub(wire.channel)
            request = ServerReflectionRequest(list_services="")
            (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE)
        return {service.name for service in answer.list_services_response.service}

    own = {f"elman.v1.{name}Service" for name in ("Session", "Generation", "Model")}
    assert own < services(server_process.address)
    assert refused(services, odd_server.address) == Refusal("UNIMPLEMENTED")


def test_a_tool_that_knows_nothing_can_call_through_reflection(server_process):
    """`buf curl` learns the contract from the server and calls it."""
    buf = Path(sys.executable).with_name("buf")
    need("buf", is_there=buf.exists())
    url = f"http://{server_process.address}/elman.v1.ModelService/GetModel"
    command = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", '{"name": "models/elman"}', url]

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["cell"] == "CELL_ELMAN"


def test_the_front_goes_before_its_engines(server_process):
    """A request that comes in does not wait for an engine that computes."""
    front = os.getpriority(os.PRIO_PROCESS, server_process.pid)
    engines = {os.getpriority(os.PRIO_PROCESS, pid) for pid in server_process.engines()}
    assert engines == {min(19, front + NICENESS)}


def test_the_log_holds_no_text(odd_server):
    """At level debug neither what was read nor what was drawn is logged; every call has a request id, errors too."""
    with Client(odd_server.address, timeout=PATIENCE) as client, wire_to(odd_server.address) as wire:
        session = client.create_session("gru")
        drawn = "".join(session.generate(_SECRET, max_chars=300, log_probability=True))
        session.append(_SECRET)
        session.score(_SECRET)
        client.encode_text("gru", _SECRET)
        with pytest.raises(CharacterNotInVocabularyError) as caught:
            session.append(f"{_SECRET}\N{SNAKE}")
        refused(wire.generate, one_shot(_SECRET, "nan", stopping=messages.Stopping(stop_strings=[_SECRET, ""])))
        only = sampling_pb2.Sampling(allowed_characters="!")
        assert refused(wire.generate, one_shot("!!!", "nan", sampling=only)).reason == "NOT_FINITE"
        session.delete()
        odd_server.log.wait_for("DeleteSession")

    text = odd_server.log.text
    calls = [line for line in map(json.loads, text.splitlines()) if line["event"] == "call"]
    assert [line for line in calls if not line["request_id"]] == []
    assert caught.value.request_id in {line["request_id"] for line in calls}
    assert {"OK", "INVALID_ARGUMENT", "INTERNAL"} <= {line["code"] for line in calls}
    for secret in (_SECRET, drawn[:20], drawn[-20:]):
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text
