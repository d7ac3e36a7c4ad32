import uuid

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo
from google.rpc.status_pb2 import Status

from elman.v1.generation_pb2 import GenerateRequest
from elman.v1.session_pb2 import GetSessionRequest
from elman_server.domain.errors import EtagMismatchError, NotFiniteError
from elman_server.grpc.status import DOMAIN, INTERNAL_SENTENCE

GET = GetSessionRequest(name="sessions/abcd")
GENERATE = GenerateRequest(model="models/tiny", prompt="the prompt")


async def test_a_request_id_comes_back(served):
    """A caller's own id comes back in the trailers, from unary and streamed calls."""
    metadata = (("x-request-id", "my-id_1.2"),)
    unary = served.session.GetSession(GET, metadata=metadata)
    stream = served.generation.Generate(GENERATE, metadata=metadata)
    await _drained(stream)

    assert (await unary.trailing_metadata())["x-request-id"] == "my-id_1.2"
    assert (await stream.trailing_metadata())["x-request-id"] == "my-id_1.2"


@pytest.mark.parametrize("given", [None, "", "with space", "x" * 129, "new\\nline"])
async def test_other_ids_are_replaced(served, given):
    """Without an id, or with one that could not stand in a log, the server makes one."""
    call = served.session.GetSession(GET, metadata=() if given is None else (("x-request-id", given),))
    made = (await call.trailing_metadata())["x-request-id"]

    assert str(uuid.UUID(str(made))) == made


async def test_each_call_is_one_line(served, log):
    """The log has one line a call, with the method, the outcome, the time, the id and the peer, and no text."""
    await served.session.GetSession(GET, metadata=(("x-request-id", "id-1"),))
    async for _ in served.generation.Generate(GENERATE, metadata=(("x-request-id", "id-2"),)):
        pass
    lines = log()

    always = {"event", "level", "timestamp", "method", "code", "seconds", "request_id", "peer"}
    assert [set(line) - always for line in lines] == [{"session"}, {"model"}]
    assert all(always <= set(line) for line in lines)
    assert [(line["level"], line["method"], line["code"], line["request_id"]) for line in lines] == [
        ("info", "/elman.v1.SessionService/GetSession", "OK", "id-1"),
        ("info", "/elman.v1.GenerationService/Generate", "OK", "id-2"),
    ]
    assert "the prompt" not in str(lines)


async def test_expected_errors_have_details_and_no_traceback(served, log):
    """A caller's error arrives with its details and is an info line with its reason."""
    served.sessions.error = EtagMismatchError("sessions/abcd", "2a")
    error = await _failure(served.session.GetSession(GET, metadata=(("x-request-id", "id-1"),)))
    info, request = ErrorInfo(), RequestInfo()
    status = Status.FromString(error.trailing_metadata()["grpc-status-details-bin"])
    status.details[0].Unpack(info)
    status.details[1].Unpack(request)
    (line,) = log()

    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, status.message)
    assert (info.reason, info.domain, dict(info.metadata)) == ("ETAG_MISMATCH", DOMAIN, {"etag": "2a"})
    assert request.request_id == error.trailing_metadata()["x-request-id"] == "id-1"
    assert (line["level"], line["code"], line["reason"]) == ("info", "ABORTED", "ETAG_MISMATCH")
    assert "exception" not in line


@pytest.mark.parametrize("error", [RuntimeError("secret cause"), NotFiniteError("row 3")])
async def test_unexpected_errors_are_one_sentence(served, log, error):
    """The server's own fault reaches the caller as one sentence and an id; the cause is in the log under that id."""
    served.sessions.error = served.turns.error = error
    for call in (served.session.GetSession(GET), _drained(served.generation.Generate(GENERATE))):
        caught = await _failure(call)

        assert (caught.code(), caught.details()) == (grpc.StatusCode.INTERNAL, INTERNAL_SENTENCE)
        assert b"secret" not in caught.trailing_metadata()["grpc-status-details-bin"]
        lines = {line["request_id"]: line for line in log()}
        line = lines[caught.trailing_metadata()["x-request-id"]]
        assert line["level"] == "error"
        assert str(error) in line["exception"]


async def test_an_error_ends_a_stream_after_its_events(served):
    """What was sent before an error arrives; then comes the status."""
    served.turns.error = EtagMismatchError("sessions/abcd", "2a")
    call = served.generation.Generate(GENERATE)
    events = [await call.read() for _ in range(3)]

    assert [[field.name for field, _ in event.ListFields()] for event in events] == [
        ["started"],
        ["chunk"],
        ["finished"],
    ]
    assert (await _failure(call.read())).code() is grpc.StatusCode.ABORTED


async def test_a_cancelled_call_is_logged_as_such(served, log):
    """A caller that leaves is not an error of the server."""
    served.turns.is_endless = True
    call = served.generation.Generate(GENERATE)
    await call.read()
    call.cancel()
    await served.turns.closed.wait()
    await served.session.GetSession(GET)

    assert [(line["level"], line["code"]) for line in log()] == [("info", "CANCELLED"), ("info", "OK")]
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in log())


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x03\xed\xa0\x80"])
async def test_bytes_that_are_no_message_are_refused(served, data):
    """Garbage, or a string that is not UTF-8 (a lone surrogate cannot be), is the caller's error."""
    call = served.channel.unary_unary("/elman.v1.SessionService/GetSession")

    assert (await _failure(call(data))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_unknown_methods_are_unimplemented(served):
    """A method that is not there says so."""
    for method in ("/elman.v1.SessionService/Fork", "/nobody.Knows/This"):
        assert (await _failure(served.channel.unary_unary(method)(b""))).code() is grpc.StatusCode.UNIMPLEMENTED


async def _drained(call):
    async for _ in call:
        pass


async def _failure(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
