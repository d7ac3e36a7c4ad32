import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message_factory import GetMessages
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_tools import protoc

SERVICES = ["", "elman.v1.SessionService", "elman.v1.GenerationService", "elman.v1.ModelService"]


@pytest.fixture
async def served(serve):
    """A server whose store and engines are there."""
    async with serve() as served:
        served.server.set_store(True)
        served.server.set_engines(True)
        yield served


@pytest.mark.parametrize("service", SERVICES)
async def test_check_follows_the_server(served, service):
    """Every service is NOT_SERVING before the server serves, then SERVING, then not again."""
    check, request = HealthStub(served.channel).Check, HealthCheckRequest(service=service)
    before = await check(request)
    await served.server.set_serving(True)
    during = await check(request)
    await served.server.set_serving(False)
    after = await check(request)

    assert [answer.status for answer in (before, during, after)] == [
        HealthCheckResponse.NOT_SERVING,
        HealthCheckResponse.SERVING,
        HealthCheckResponse.NOT_SERVING,
    ]


@pytest.mark.parametrize(
    ("fail", "down"), [("set_store", {"", SERVICES[1], SERVICES[2]}), ("set_engines", {"", SERVICES[2]})]
)
async def test_a_service_serves_only_with_what_it_needs(served, fail, down):
    """Without the store sessions and turns are NOT_SERVING, without an engine turns are; models need neither."""
    check = HealthStub(served.channel).Check
    await served.server.set_serving(True)
    getattr(served.server, fail)(False)
    answers = {service: (await check(HealthCheckRequest(service=service))).status for service in SERVICES}
    getattr(served.server, fail)(True)
    after = {(await check(HealthCheckRequest(service=service))).status for service in SERVICES}

    assert {service for service in SERVICES if answers[service] == HealthCheckResponse.NOT_SERVING} == down
    assert after == {HealthCheckResponse.SERVING}


async def test_an_unknown_service_is_not_found(served):
    """Check of a service that is not there is NOT_FOUND."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await HealthStub(served.channel).Check(HealthCheckRequest(service="nobody"))

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


LIST = """
syntax = "proto3";
message Response {
  message Status { int32 status = 1; }
  map<string, Status> statuses = 1;
}
"""


async def test_list_has_every_service(served, tmp_path):
    """One call says of each service whether it is served; its message is that of grpc.health.v1."""
    (tmp_path / "list.proto").write_text(LIST)
    compiled = tmp_path / "list.binpb"
    assert protoc.main(["", f"-I{tmp_path}", f"--descriptor_set_out={compiled}", "list.proto"]) == 0
    files = FileDescriptorSet.FromString(compiled.read_bytes()).file
    response = GetMessages(files)["Response"]
    listed = served.channel.unary_unary("/grpc.health.v1.Health/List", response_deserializer=response.FromString)
    for is_serving, status in ((False, HealthCheckResponse.NOT_SERVING), (True, HealthCheckResponse.SERVING)):
        await served.server.set_serving(is_serving)
        answer = await listed(b"")
        assert {name: entry.status for name, entry in answer.statuses.items()} == dict.fromkeys(SERVICES, status)


async def test_probes_are_quiet(served, log):
    """Checks, which come every few seconds, are logged at level debug."""
    await HealthStub(served.channel).Check(HealthCheckRequest())

    assert [(line["level"], line["code"]) for line in log()] == [("debug", "OK")]


async def test_watchers_hear_every_change(served):
    """Each watcher receives the status at once and at every change, also after another one left."""
    stub = HealthStub(served.channel)
    first, second = (stub.Watch(HealthCheckRequest(service=service)) for service in ("", SERVICES[1]))
    heard = [await first.read(), await second.read()]
    first.cancel()
    await served.server.set_serving(True)
    heard.append(await second.read())

    assert [answer.status for answer in heard] == [
        HealthCheckResponse.NOT_SERVING,
        HealthCheckResponse.NOT_SERVING,
        HealthCheckResponse.SERVING,
    ]
    second.cancel()


async def test_watching_an_unknown_service_says_so(served):
    """Watch of an unknown service returns SERVICE_UNKNOWN."""
    call = HealthStub(served.channel).Watch(HealthCheckRequest(service="nobody"))

    assert (await call.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    call.cancel()


async def test_watches_do_not_hold_up_the_stop(served):
    """At the stop watchers receive NOT_SERVING and their streams end with OK, long before the grace is over."""
    await served.server.set_serving(True)
    call = HealthStub(served.channel).Watch(HealthCheckRequest(service=""))
    await call.read()
    await served.server.stop(60)

    assert (await call.read()).status == HealthCheckResponse.NOT_SERVING
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
