"""The one table from the domain's errors to gRPC statuses, reasons and details.

RetryInfo goes with UNAVAILABLE, the code that standard retry policies repeat, and with RESOURCE_EXHAUSTED, but with no
other code: they would contradict each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    QuotaFailure,
    RequestInfo,
    ResourceInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from elman_server.domain import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

# Names the server that a reason belongs to, the same for all versions of the contract: clients compare it as it is.
DOMAIN: Final = "elman-server.github.io"
INTERNAL_SENTENCE: Final = "the server has an internal error; contact the operator with the request id"
# gRPC drops trailers above 8 KiB; ours stay below 4 KiB even in base64.
_MAX_SENTENCE: Final = 600
_MAX_VALUE: Final = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call failed.

    Attributes:
        message: the sentence for the caller.
        details: a serialized google.rpc.Status.
        is_expected: False if the server is at fault: then its log has the traceback.
    """

    code: StatusCode
    reason: str
    message: str
    details: bytes
    is_expected: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What one domain error becomes.

    Attributes:
        details: returns the messages beside ErrorInfo.
        metadata: returns ErrorInfo's.
    """

    code: StatusCode
    reason: str
    details: Callable[[Any], list[Message]] = lambda _: []
    metadata: Callable[[Any], dict[str, str]] = lambda _: {}


def to_failure(error: Exception, request_id: str) -> Failure:
    """Return what the caller gets for `error`; for one that is not in the table only the request id."""
    row = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), _UNEXPECTED)
    is_expected = row.code not in {StatusCode.INTERNAL, StatusCode.DATA_LOSS}
    message = INTERNAL_SENTENCE if row.code is StatusCode.INTERNAL else _cut(str(error), _MAX_SENTENCE)
    reason = TOO_MANY.get(error.subject, row.reason) if isinstance(error, errors.QuotaError) else row.reason
    metadata = {key: _cut(value, _MAX_VALUE) for key, value in row.metadata(error).items()}
    details = [
        ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata),
        RequestInfo(request_id=request_id),
        *row.details(error),
    ]
    status = Status(code=row.code.value[0], message=message, details=[_packed(detail) for detail in details])
    return Failure(row.code, reason, message, status.SerializeToString(), is_expected)


def _bad_request(error: errors.InvalidFieldError) -> list[Message]:
    field, description = _cut(error.field, _MAX_VALUE), _cut(error.description, _MAX_SENTENCE)
    return [BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=description)])]


def _values(error: errors.ValueRangeError) -> dict[str, str]:
    return {"field": error.field, "value": str(error.value), "min": error.low, "max": error.high}


def _characters(error: errors.UnknownCharacterError) -> dict[str, str]:
    characters = "".join(character for character, _ in error.characters)
    return {"characters": characters, "indices": ",".join(str(index) for _, index in error.characters)}


def _resource(error: errors.NotThereError | errors.SessionExistsError) -> list[Message]:
    kind = "elman.v1.Model" if isinstance(error, errors.ModelNotFoundError) else "elman.v1.Session"
    return [ResourceInfo(resource_type=kind, resource_name=_cut(error.resource, _MAX_VALUE))]


def _retry(error: errors.RetryableError) -> list[Message]:
    delay = Duration()
    delay.FromMilliseconds(round(error.retry_after * 1000))
    return [RetryInfo(retry_delay=delay)]


def _quota(error: errors.QuotaError) -> list[Message]:
    violation = QuotaFailure.Violation(subject=error.subject, description=f"at most {error.limit}")
    return [QuotaFailure(violations=[violation]), *_retry(error)]


def _scope(error: errors.PermissionDeniedError) -> dict[str, str]:
    return {"scope": error.scope}


def _etag(error: errors.EtagMismatchError) -> dict[str, str]:
    return {"etag": error.current}


def _fingerprints(error: errors.FingerprintMismatchError) -> dict[str, str]:
    return {"expected": error.expected, "actual": error.actual}


def _range(error: errors.PositionOutOfRangeError) -> dict[str, str]:
    return {"field": error.field, "value": str(error.value), "start": str(error.start), "end": str(error.end)}


TOO_MANY: Final = {
    "streams": "TOO_MANY_STREAMS",
    "inspections": "TOO_MANY_INSPECTIONS",
    "stored bytes": "TOO_MANY_BYTES",
    "characters a minute": "TOO_MANY_CHARACTERS",
    "requests a minute": "TOO_MANY_REQUESTS",
    "unread characters": "TOO_MANY_UNREAD",
    "calls that read sessions": "TOO_MANY_CALLS",
}
_UNEXPECTED: Final = Row(StatusCode.INTERNAL, "INTERNAL")

TABLE: Final[Mapping[type[Any], Row]] = {
    errors.InvalidFieldError: Row(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", _bad_request),
    errors.ValueRangeError: Row(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", _bad_request, _values),
    errors.UnknownCharacterError: Row(
        StatusCode.INVALID_ARGUMENT, "CHARACTER_NOT_IN_VOCABULARY", _bad_request, _characters
    ),
    errors.UnauthenticatedError: Row(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.PermissionDeniedError: Row(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", metadata=_scope),
    errors.ModelNotFoundError: Row(StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", _resource),
    errors.SessionNotFoundError: Row(StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", _resource),
    errors.SessionExpiredError: Row(StatusCode.NOT_FOUND, "SESSION_EXPIRED", _resource),
    errors.SessionEvictedError: Row(StatusCode.NOT_FOUND, "SESSION_EVICTED", _resource),
    errors.TurnNotFoundError: Row(StatusCode.NOT_FOUND, "TURN_NOT_FOUND", _resource),
    errors.SessionExistsError: Row(StatusCode.ALREADY_EXISTS, "SESSION_EXISTS", _resource),
    errors.EtagMismatchError: Row(StatusCode.ABORTED, "ETAG_MISMATCH", metadata=_etag),
    errors.LeaseLostError: Row(StatusCode.ABORTED, "LEASE_LOST"),
    errors.TurnCancelledError: Row(StatusCode.CANCELLED, "TURN_CANCELLED"),
    errors.GatesAbsentError: Row(StatusCode.FAILED_PRECONDITION, "GATES_ABSENT"),
    errors.StalledReaderError: Row(StatusCode.CANCELLED, "READER_STALLED"),
    errors.ModelMismatchError: Row(StatusCode.FAILED_PRECONDITION, "MODEL_MISMATCH"),
    errors.FingerprintMismatchError: Row(
        StatusCode.FAILED_PRECONDITION, "FINGERPRINT_MISMATCH", metadata=_fingerprints
    ),
    errors.SessionFullError: Row(StatusCode.FAILED_PRECONDITION, "SESSION_FULL"),
    errors.PositionOutOfRangeError: Row(StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE", metadata=_range),
    errors.SessionBusyError: Row(StatusCode.UNAVAILABLE, "SESSION_BUSY", _retry),
    errors.QuotaError: Row(StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", _quota),
    errors.OwnQuotaError: Row(StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", _quota),
    errors.StartingError: Row(StatusCode.UNAVAILABLE, "STARTING", _retry),
    errors.OverloadedError: Row(StatusCode.UNAVAILABLE, "OVERLOADED", _retry),
    errors.DrainingError: Row(StatusCode.UNAVAILABLE, "DRAINING", _retry),
    errors.DeadlineError: Row(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    errors.EngineRestartedError: Row(StatusCode.UNAVAILABLE, "ENGINE_RESTARTED", _retry),
    errors.StoreUnavailableError: Row(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", _retry),
    errors.StoreFullError: Row(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", _retry),
    errors.IssuerUnavailableError: Row(StatusCode.UNAVAILABLE, "ISSUER_UNAVAILABLE", _retry),
    errors.CorruptRecordError: Row(StatusCode.DATA_LOSS, "CORRUPT_RECORD"),
    errors.NotFiniteError: Row(StatusCode.INTERNAL, "NOT_FINITE"),
}


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _cut(text: str, max_bytes: int) -> str:
    """Return `text` as valid UTF-8 of at most `max_bytes`, without control characters."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text[:max_bytes])
    return clean.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")
