import base64
import inspect
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RequestInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from elman_server.domain import errors
from elman_server.grpc.status import INTERNAL_SENTENCE, TABLE, TOO_MANY, to_failure

GROUPS = {errors.ServerError, errors.NotThereError, errors.RetryableError, errors.UnavailableError}
START_UP = {errors.SettingsError, errors.ArtefactError, errors.BackupError}
WITHIN = {errors.RevisionMismatchError}  # the stores raise it, the repository reads again  # never raised by a call

CASES: list[tuple[Exception, StatusCode, str, dict[str, str], list[Any]]] = [
    (
        errors.InvalidFieldError("sampling.top_p", "is 2; allowed is above 0 to 1"),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        {},
        [
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field="sampling.top_p", description="is 2; allowed is above 0 to 1")
                ]
            )
        ],
    ),
    (
        errors.ValueRangeError("sampling.top_p", 2.0, "0", "1", "above 0 to 1"),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        {"field": "sampling.top_p", "value": "2.0", "min": "0", "max": "1"},
        [
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field="sampling.top_p", description="is 2.0; allowed is above 0 to 1")
                ]
            )
        ],
    ),
    (
        errors.ModelNotFoundError("models/x"),
        StatusCode.NOT_FOUND,
        "MODEL_NOT_FOUND",
        {},
        [ResourceInfo(resource_type="elman.v1.Model", resource_name="models/x")],
    ),
    (
        errors.UnauthenticatedError("the token is not known"),
        StatusCode.UNAUTHENTICATED,
        "UNAUTHENTICATED",
        {},
        [],
    ),
    (errors.PermissionDeniedError("admin"), StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", {"scope": "admin"}, []),
    *(
        (
            kind("sessions/~auth0%7C1/abcd"),  # without the owner
            code,
            reason,
            {},
            [ResourceInfo(resource_type="elman.v1.Session", resource_name="sessions/abcd")],
        )
        for kind, code, reason in (
            (errors.SessionNotFoundError, StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"),
            (errors.SessionExpiredError, StatusCode.NOT_FOUND, "SESSION_EXPIRED"),
            (errors.SessionEvictedError, StatusCode.NOT_FOUND, "SESSION_EVICTED"),
            (errors.TurnNotFoundError, StatusCode.NOT_FOUND, "TURN_NOT_FOUND"),
            (errors.SessionExistsError, StatusCode.ALREADY_EXISTS, "SESSION_EXISTS"),
        )
    ),
    (errors.EtagMismatchError("sessions/abcd", "1f"), StatusCode.ABORTED, "ETAG_MISMATCH", {"etag": "1f"}, []),
    (errors.LeaseLostError("sessions/abcd"), StatusCode.ABORTED, "LEASE_LOST", {}, []),
    (errors.StalledReaderError(60), StatusCode.CANCELLED, "READER_STALLED", {}, []),
    (errors.SessionFullError("full"), StatusCode.FAILED_PRECONDITION, "SESSION_FULL", {}, []),
    (errors.ModelMismatchError("pinned"), StatusCode.FAILED_PRECONDITION, "MODEL_MISMATCH", {}, []),
    (
        errors.FingerprintMismatchError("sessions/abcd", "portable-1", "another"),
        StatusCode.FAILED_PRECONDITION,
        "FINGERPRINT_MISMATCH",
        {"expected": "portable-1", "actual": "another"},
        [],
    ),
    (
        errors.PositionOutOfRangeError("end", 9, 0, 7),
        StatusCode.OUT_OF_RANGE,
        "POSITION_OUT_OF_RANGE",
        {"field": "end", "value": "9", "start": "0", "end": "7"},
        [],
    ),
    (
        errors.SessionBusyError("sessions/abcd", 0.25),
        StatusCode.UNAVAILABLE,
        "SESSION_BUSY",
        {},
        [RetryInfo(retry_delay=Duration(nanos=250_000_000))],
    ),
    *(
        (
            errors.QuotaError(subject, 5, 2),
            StatusCode.RESOURCE_EXHAUSTED,
            reason,
            {},
            [
                QuotaFailure(violations=[QuotaFailure.Violation(subject=subject, description="at most 5")]),
                RetryInfo(retry_delay=Duration(seconds=2)),
            ],
        )
        for subject, reason in (("sessions", "TOO_MANY_SESSIONS"), ("streams", "TOO_MANY_STREAMS"))
    ),
    *(
        (
            errors.OwnQuotaError(subject, 5, 2),
            StatusCode.RESOURCE_EXHAUSTED,
            reason,
            {},
            [
                QuotaFailure(violations=[QuotaFailure.Violation(subject=subject, description="at most 5")]),
                RetryInfo(retry_delay=Duration(seconds=2)),
            ],
        )
        for subject, reason in (("sessions", "TOO_MANY_SESSIONS"), *TOO_MANY.items())
    ),
    (
        errors.IssuerUnavailableError(),
        StatusCode.UNAVAILABLE,
        "ISSUER_UNAVAILABLE",
        {},
        [RetryInfo(retry_delay=Duration(seconds=5))],
    ),
    *(
        (error, StatusCode.UNAVAILABLE, reason, {}, [RetryInfo(retry_delay=Duration(seconds=1))])
        for error, reason in (
            (errors.OverloadedError("full", 1), "OVERLOADED"),
            (errors.DrainingError(), "DRAINING"),
            (errors.EngineRestartedError(), "ENGINE_RESTARTED"),
            (errors.StartingError(), "STARTING"),
            (errors.StoreUnavailableError("away", 1), "STORE_UNAVAILABLE"),
        )
    ),
    (errors.CorruptRecordError("broken"), StatusCode.DATA_LOSS, "CORRUPT_RECORD", {}, []),
    (errors.NotFiniteError("NaN in row 3"), StatusCode.INTERNAL, "NOT_FINITE", {}, []),
    (ZeroDivisionError("secret"), StatusCode.INTERNAL, "INTERNAL", {}, []),
]


def test_every_error_has_a_row():
    """No error of the domain can be raised by a call and be missing from the table."""
    every = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ServerError)}

    assert set(TABLE) == every - GROUPS - START_UP - WITHIN


def test_code_and_retry_info_agree():
    """What says when to send the request again has a code that retry policies repeat, or that of a quota."""
    retried = {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED}
    for error, code, _, _, details in CASES:
        assert any(isinstance(detail, RetryInfo) for detail in details) == (code in retried), error


@pytest.mark.parametrize(
    ("error", "code", "reason", "metadata", "details"), CASES, ids=lambda case: type(case).__name__
)
def test_errors_become_statuses(
    error: Exception, code: StatusCode, reason: str, metadata: dict[str, str], details: list[Any]
):
    """Each error has its code, its reason, the request id and its own details."""
    failure = to_failure(error, "id-1")
    status = Status.FromString(failure.details)

    assert (failure.code, failure.reason) == (code, reason)
    assert (status.code, status.message) == (code.value[0], failure.message)
    assert _unpacked(status) == [
        ErrorInfo(reason=reason, domain="elman-server.github.io", metadata=metadata),
        RequestInfo(request_id="id-1"),
        *details,
    ]


def test_unknown_characters_can_be_read_back():
    """ErrorInfo says which characters and where, beside the violation."""
    failure = to_failure(errors.UnknownCharacterError("prompt", [("é", 3), ("\0", 7)], 2), "id-1")
    info, _, bad_request = _unpacked(Status.FromString(failure.details))

    assert failure.reason == "CHARACTER_NOT_IN_VOCABULARY"
    assert info.metadata == {"characters": "é\ufffd", "indices": "3,7"}
    assert bad_request.field_violations[0].field == "prompt"


@pytest.mark.parametrize("error", [errors.NotFiniteError("row 3"), RuntimeError("secret")])
def test_own_faults_are_one_fixed_sentence(error: Exception):
    """A fault of the server shows the caller nothing but the request id."""
    failure = to_failure(error, "id-1")

    assert (failure.message, failure.is_expected) == (INTERNAL_SENTENCE, False)
    assert b"secret" not in failure.details


@pytest.mark.parametrize("text", ["x" * 100_000, "\U0001f600" * 100_000, "\ud800" * 10_000, "\0\x1b[2J\n" * 10_000])
def test_details_stay_small_and_clean(text: str):
    """Whatever is echoed, trailers stay below 4 KiB, valid UTF-8 and free of control characters."""
    for error in (errors.InvalidFieldError(text, text), errors.SessionNotFoundError(text)):
        failure = to_failure(error, "i" * 128)

        assert len(base64.b64encode(failure.details)) < 4096
        assert len(failure.message.encode()) <= 600
        assert failure.message.isprintable()


def _unpacked(status: Status) -> list[Any]:
    kinds = [ErrorInfo, RequestInfo, BadRequest, ResourceInfo, RetryInfo, QuotaFailure]
    messages = []
    for packed in status.details:
        kind = next(kind for kind in kinds if packed.Is(kind.DESCRIPTOR))
        message = kind()
        packed.Unpack(message)
        messages.append(message)
    return messages
