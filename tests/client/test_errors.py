import inspect
import pickle
import re

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    QuotaFailure,
    RequestInfo,
    ResourceInfo,
    RetryInfo,
)

import elman_client
from elman_client import FieldViolation, _errors
from elman_client._shared.statuses import BY_CODE, BY_REASON
from tests.client.fake_servicer import packed_status

# Every reason that a server sends, its status and what a caller catches.
TABLE = [
    ("INVALID_FIELD", "INVALID_ARGUMENT", elman_client.InvalidArgumentError),
    (
        "CHARACTER_NOT_IN_VOCABULARY",
        "INVALID_ARGUMENT",
        elman_client.CharacterNotInVocabularyError,
    ),
    ("SESSION_NOT_FOUND", "NOT_FOUND", elman_client.SessionNotFoundError),
    ("SESSION_EXPIRED", "NOT_FOUND", elman_client.SessionExpiredError),
    ("SESSION_EVICTED", "NOT_FOUND", elman_client.SessionEvictedError),
    ("TURN_NOT_FOUND", "NOT_FOUND", elman_client.TurnNotFoundError),
    ("MODEL_NOT_FOUND", "NOT_FOUND", elman_client.ModelNotFoundError),
    ("SESSION_EXISTS", "ALREADY_EXISTS", elman_client.AlreadyExistsError),
    ("ETAG_MISMATCH", "ABORTED", elman_client.EtagMismatchError),
    ("LEASE_LOST", "ABORTED", elman_client.LeaseLostError),
    ("SESSION_BUSY", "UNAVAILABLE", elman_client.SessionBusyError),
    ("MODEL_MISMATCH", "FAILED_PRECONDITION", elman_client.FailedPreconditionError),
    ("FINGERPRINT_MISMATCH", "FAILED_PRECONDITION", elman_client.FailedPreconditionError),
    ("POSITION_OUT_OF_RANGE", "OUT_OF_RANGE", elman_client.OutOfRangeError),
    ("TOO_MANY_SESSIONS", "RESOURCE_EXHAUSTED", elman_client.ResourceExhaustedError),
    ("TOO_MANY_STREAMS", "RESOURCE_EXHAUSTED", elman_client.ResourceExhaustedError),
    ("OVERLOADED", "UNAVAILABLE", elman_client.UnavailableError),
    ("DRAINING", "UNAVAILABLE", elman_client.UnavailableError),
    ("ENGINE_RESTARTED", "UNAVAILABLE", elman_client.UnavailableError),
    ("STORE_UNAVAILABLE", "UNAVAILABLE", elman_client.UnavailableError),
    ("CORRUPT_RECORD", "DATA_LOSS", elman_client.DataLossError),
    ("CORRUPT_RECORD", "INVALID_ARGUMENT", elman_client.InvalidArgumentError),
    ("NOT_FINITE", "INTERNAL", elman_client.InternalError),
    ("INTERNAL", "INTERNAL", elman_client.InternalError),
    ("OF_A_NEWER_SERVER", "NOT_FOUND", elman_client.NotFoundError),
    ("OF_A_NEWER_SERVER", "ABORTED", elman_client.ElmanError),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", elman_client.UnauthenticatedError),
    ("PERMISSION_DENIED", "PERMISSION_DENIED", elman_client.PermissionDeniedError),
]


@pytest.mark.parametrize(("reason", "code", "kind"), TABLE)
async def test_every_reason_has_its_error(client, server, reason, code, kind):
    """A status with a reason becomes the error of that reason, with the server's own sentence."""
    status = grpc.StatusCode[code]
    info = ErrorInfo(reason=reason, domain="elman-server.github.io")
    details = packed_status(status, "what happened", info, RequestInfo(request_id="abc"))
    server.servicer.failure = (status, "what happened", details)

    with pytest.raises(kind) as caught:
        await client.list_models()

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert (str(caught.value), caught.value.request_id) == ("what happened", "abc")
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize("code", [c.name for c in grpc.StatusCode if c.name != "OK"])
async def test_every_status_has_its_error(client, server, code):
    """A bare status, as proxies send it, has the error of its code (CANCELLED: of a lost call) and says what to do."""
    server.servicer.failure = (grpc.StatusCode[code], "what\nhappened", b"")
    kind = BY_CODE.get("UNAVAILABLE" if code == "CANCELLED" else code, elman_client.ElmanError)

    with pytest.raises(elman_client.ElmanError) as caught:
        await client.list_models()

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.reason) == (code, "")
    assert str(caught.value) == f"{server.target}: what happened; {kind.next_step}"


async def test_all_details_are_read(client, server):
    """Everything that google.rpc can say of an error is on it, as plain values."""
    details = packed_status(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "no",
        ErrorInfo(reason="TOO_MANY_SESSIONS", domain="elman-server.github.io", metadata={"limit": "5"}),
        RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
        ResourceInfo(resource_name="sessions/x"),
        QuotaFailure(violations=[QuotaFailure.Violation(description="at most 5")]),
        BadRequest(field_violations=[BadRequest.FieldViolation(field="f", description="d")]),
        Duration(seconds=1),  # of a kind that the client does not know
    )
    server.servicer.failure = (grpc.StatusCode.RESOURCE_EXHAUSTED, "no", details)

    with pytest.raises(elman_client.ResourceExhaustedError) as caught:
        await client.list_models()

    assert caught.value.retry_after == 1.5
    assert caught.value.field_violations == (FieldViolation("f", "d"),)
    assert caught.value.details.metadata == {"limit": "5"}
    assert caught.value.details.resource == "sessions/x"
    assert caught.value.details.quotas == ("at most 5",)


async def test_a_foreign_reason_is_not_ours(client, server):
    """A reason of another domain is not mistaken for the server's."""
    info = ErrorInfo(reason="SESSION_BUSY", domain="googleapis.com")
    status = grpc.StatusCode.FAILED_PRECONDITION
    server.servicer.failure = (status, "no", packed_status(status, "no", info))

    with pytest.raises(elman_client.FailedPreconditionError) as caught:
        await client.list_models()

    assert type(caught.value) is elman_client.FailedPreconditionError


async def test_damaged_details_leave_the_status(client, server):
    """Details that cannot be read do not hide the status."""
    server.servicer.failure = (grpc.StatusCode.NOT_FOUND, "no", b"\xff\xff garbage")

    with pytest.raises(elman_client.NotFoundError):
        await client.list_models()


def test_metadata_becomes_attributes():
    """The current etag and the valid range are typed attributes, absent if not told."""
    metadata = {"etag": "e2", "start": "0", "end": "17"}
    details = elman_client.ErrorDetails(metadata=metadata)

    assert elman_client.EtagMismatchError("m", details=details).current_etag == "e2"
    assert elman_client.OutOfRangeError("m", details=details).valid_range == (0, 17)
    assert elman_client.EtagMismatchError("m").current_etag == ""
    assert elman_client.OutOfRangeError("m").valid_range is None


def test_the_table_and_the_tree_agree():
    """Every class of the tree is reached by a status or a reason, and has that status."""
    classes = {c for _, c in inspect.getmembers(_errors, inspect.isclass) if issubclass(c, Exception)}

    assert classes == {elman_client.ElmanError, *BY_CODE.values(), *BY_REASON.values()}
    assert all(kind.code == code for code, kind in BY_CODE.items())
    assert {(r, k.code) for r, k in BY_REASON.items()} <= {(r, c) for r, c, _ in TABLE}


def test_the_drawn_tree_is_the_tree():
    """The drawing in the docstring names every class, under its parent."""
    drawn, path = {}, [""] * 4
    for indent, name in re.findall(r"^ {4}([│├└─ ]*)(\w+Error)\b", _errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4
        path[depth] = name
        drawn[name] = path[depth - 1] if depth else "Exception"

    assert drawn == {
        c.__name__: c.__mro__[1].__name__
        for _, c in inspect.getmembers(_errors, inspect.isclass)
        if issubclass(c, Exception)
    }


def test_errors_cross_processes():
    """An error survives pickling, as worker pools do it."""
    error = elman_client.NotFoundError("no", reason="SESSION_EXPIRED", request_id="abc")

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), copy.args, copy.__dict__) == (type(error), error.args, error.__dict__)
