import asyncio
import socket
import struct
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from elman.v1.generation_pb2 import GenerateRequest
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.model_pb2 import ListModelsRequest
from elman.v1.model_pb2_grpc import ModelServiceStub
from elman.v1.session_pb2 import CreateSessionRequest, GetSessionRequest
from elman_server.domain.errors import SettingsError
from elman_server.grpc import server

GET = GetSessionRequest(name="sessions/abcd")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # with empty SETTINGS


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_all_services(served, version):
    """By its new name and by its old one: the three services, health and itself."""
    (answer,) = await _reflected(served.channel, version)

    assert sorted(service.name for service in answer.list_services_response.service) == [
        "elman.v1.GenerationService",
        "elman.v1.ModelService",
        "elman.v1.SessionService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


async def test_reflection_can_be_switched_off(serve):
    """With the setting off there is no reflection."""
    async with serve(reflection=False) as served:
        for version in ("v1", "v1alpha"):
            method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            call = served.channel.stream_stream(method)(iter(()))  # a message could cross the status
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_serving_is_told_in_one_line(served, log):
    """The log says how many models are served, and where, with the real port."""
    await served.server.set_serving(True)

    assert [line["event"] for line in log()] == [f"serving 1 model on 127.0.0.1:{served.port}"]


async def test_a_taken_port_is_an_error(served, serve):
    """A second server on the same port is refused in one line that says what to do."""
    with pytest.raises(SettingsError, match="choose another with --listen"):
        async with serve(listen=f"127.0.0.1:{served.port}"):
            pass


async def test_a_unix_socket_can_be_served(serve, tmp_path):
    """The address may be a path."""
    address = f"unix:{tmp_path}/socket"
    async with serve(listen=address) as served, grpc.aio.insecure_channel(address) as channel:
        answer = await ModelServiceStub(channel).ListModels(ListModelsRequest())

        assert (served.server.address, len(answer.models)) == (address, 1)


async def test_a_taken_unix_socket_is_an_error(serve, tmp_path):
    """A second server on the same path is refused, and does not take it away; what a dead server left is replaced."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    address = f"unix:{path}"
    async with serve(listen=address):
        with pytest.raises(SettingsError, match=f"cannot listen on {address}: it is in use"):
            async with serve(listen=address):
                pass
        async with grpc.aio.insecure_channel(address) as channel:
            await ModelServiceStub(channel).ListModels(ListModelsRequest())


async def test_tls_is_spoken_with_a_certificate(serve, tmp_path):
    """With a certificate and its key, callers that trust it get through and those without TLS do not."""
    certificate, key = _self_signed(tmp_path)
    async with serve(tls_certificate=certificate, tls_key=key) as served:
        trust = grpc.ssl_channel_credentials(certificate.read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{served.port}", trust) as channel:
            answer = await ModelServiceStub(channel).ListModels(ListModelsRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await served.models.ListModels(ListModelsRequest())

    assert len(answer.models) == 1


async def test_a_certificate_that_cannot_be_used_is_an_error(serve, tmp_path):
    """A missing or broken certificate stops the start in one line."""
    broken = tmp_path / "broken.pem"
    with pytest.raises(SettingsError, match=r"cannot read .*broken\.pem"):
        async with serve(tls_certificate=broken, tls_key=broken):
            pass
    broken.write_text("nothing")
    with pytest.raises(SettingsError, match="certificate"):
        async with serve(tls_certificate=broken, tls_key=broken):
            pass


async def test_garbage_on_the_port_disturbs_nobody(served):
    """Bytes that are not HTTP/2 end their own connection and no other."""
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99,
    ):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(garbage)
            answer = await served.session.GetSession(GET)

        assert answer.session.name == "sessions/some-session"


async def test_a_connection_is_told_how_many_calls_it_may_have(serve):
    """The server's first SETTINGS have the limit; gRPC holds callers to it."""
    async with serve(max_connection_streams=7) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(PREFACE)
        async with asyncio.timeout(60):
            await reader.readuntil(struct.pack(">HI", 3, 7))  # SETTINGS_MAX_CONCURRENT_STREAMS
        writer.close()


async def test_a_caller_that_vanished_is_found(serve, monkeypatch):
    """A connection that answers no ping is closed, although a call runs on it; here within tenths of a second."""
    options = server._options

    def quick(settings):
        return [(name, 100 if value in {10_000, 30_000} else value) for name, value in options(settings)]

    monkeypatch.setattr(server, "_options", quick)
    async with serve() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(PREFACE)
        async with asyncio.timeout(60):
            await reader.read()  # to the end of the connection
        writer.close()


async def test_a_message_has_its_size(serve):
    """A message past the setting is refused with RESOURCE_EXHAUSTED."""
    async with serve(max_message_bytes=1024) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.session.CreateSession(CreateSessionRequest(model="x" * 2000))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_burst_of_streams_is_not_cancelled(served):
    """Thousands of streams that are opened at once all begin: gRPC's own small queue is out of the way."""
    served.turns.is_endless = True
    address, options = f"127.0.0.1:{served.port}", [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as other:  # one connection has 1000
        stubs = [served.generation, GenerationServiceStub(other)]
        calls = [stub.Generate(GenerateRequest(model="models/tiny")) for stub in stubs for _ in range(1000)]
        begun = await asyncio.gather(*(call.read() for call in calls))
        for call in calls:
            call.cancel()

    assert all(event.HasField("started") for event in begun)


async def test_a_proxy_may_ask_every_second_whether_the_server_is_there(served):
    """PINGs of an idle connection are answered as often as Envoy sends them, and do not end it (no GOAWAY)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))  # an empty SETTINGS frame
    for number in range(5):
        await asyncio.sleep(0.6)
        writer.write(b"\0\0\10\6" + bytes(5) + number.to_bytes(8, "big"))
        kinds = set[int]()
        while 6 not in kinds:  # PING
            header = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(header[:3], "big"))
            kinds.add(header[3])
        assert 7 not in kinds  # GOAWAY
    writer.close()


async def _reflected(channel, version):
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    return [answer async for answer in method(iter([ServerReflectionRequest(list_services="")]))]


def _self_signed(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*new, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key
