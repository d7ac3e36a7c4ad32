"""gRPC statuses and their google.rpc details into our errors: the client's table, once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import grpc

from elman_client import _errors as errors
from elman_client._shared.connection import Call

_DOMAIN = "elman-server.github.io"

BY_CODE: Final[Mapping[str, type[errors.ElmanError]]] = {
    "CANCELLED": errors.CallCancelledError,
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "NOT_FOUND": errors.NotFoundError,
    "UNAUTHENTICATED": errors.UnauthenticatedError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "RESOURCE_EXHAUSTED": errors.ResourceExhaustedError,
    "FAILED_PRECONDITION": errors.FailedPreconditionError,
    "OUT_OF_RANGE": errors.OutOfRangeError,
    "UNIMPLEMENTED": errors.UnimplementedError,
    "INTERNAL": errors.InternalError,
    "UNAVAILABLE": errors.UnavailableError,
    "DATA_LOSS": errors.DataLossError,
}
"""Any other status is an ElmanError with that code."""

# What gRPC itself says of a call that this client has cancelled.
_OURS: Final = frozenset({"Locally cancelled by application!", "Channel closed!", "Channel closed."})

BY_REASON: Final[Mapping[str, type[errors.ElmanError]]] = {
    "CHARACTER_NOT_IN_VOCABULARY": errors.CharacterNotInVocabularyError,
    "SESSION_NOT_FOUND": errors.SessionNotFoundError,
    "SESSION_EXPIRED": errors.SessionExpiredError,
    "SESSION_EVICTED": errors.SessionEvictedError,
    "TURN_NOT_FOUND": errors.TurnNotFoundError,
    "MODEL_NOT_FOUND": errors.ModelNotFoundError,
    "SESSION_BUSY": errors.SessionBusyError,
    "ETAG_MISMATCH": errors.EtagMismatchError,
    "LEASE_LOST": errors.LeaseLostError,
}
"""Any other reason, a newer server's too, is as its code says."""


@contextmanager
def translated(call: Call) -> Iterator[None]:
    """Raise our own errors in place of gRPC's."""
    try:
        yield
    except grpc.RpcError as error:
        ours = from_rpc(error, call)
        call.span.end(ours.code)
        raise ours from error


def from_rpc(error: Any, call: Call) -> errors.ElmanError:
    """Return our error for a finished gRPC call (a synchronous or an asyncio one)."""
    code = error.code().name
    trailers = dict(error.trailing_metadata() or ())
    reason, request_id, details = _details(trailers.get("grpc-status-details-bin", b""))
    kind = BY_REASON.get(reason) or BY_CODE.get(code, errors.ElmanError)
    if kind is errors.CallCancelledError and not reason and error.details() not in _OURS:
        kind = errors.UnavailableError  # a server that ended, or a proxy, has dropped the call
    message = " ".join((error.details() or f"the call ended with {code}").split())
    if not reason:  # not an elman server's own sentence, which says what to do
        message = f"{call.target}: {message}; {kind.next_step}"
    return kind(
        message,
        code=code,
        reason=reason,
        request_id=request_id or call.request_id,
        details=details,
    )


def _details(encoded: bytes) -> tuple[str, str, errors.ErrorDetails]:
    """Return reason, request id and the rest of an encoded google.rpc.Status."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - errors are rare
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - errors are rare

    reason = request_id = ""
    given: dict[str, Any] = {}
    try:
        packed = status_pb2.Status.FromString(encoded).details
    except DecodeError:  # a proxy's idea of a status
        return reason, request_id, errors.ErrorDetails()
    for detail in packed:
        message = _unpacked(detail, error_details_pb2)
        match message:
            case error_details_pb2.ErrorInfo(domain=domain) if domain == _DOMAIN:
                reason, given["metadata"] = message.reason, dict(message.metadata)
            case error_details_pb2.RequestInfo():
                request_id = message.request_id
            case error_details_pb2.RetryInfo():
                given["retry_after"] = message.retry_delay.ToTimedelta().total_seconds()
            case error_details_pb2.ResourceInfo():
                given["resource"] = message.resource_name
            case error_details_pb2.BadRequest():
                given["field_violations"] = tuple(
                    errors.FieldViolation(v.field, v.description) for v in message.field_violations
                )
            case error_details_pb2.QuotaFailure():
                given["quotas"] = tuple(v.description for v in message.violations)
    return reason, request_id, errors.ErrorDetails(**given)


def _unpacked(detail: Any, kinds: Any) -> Any:
    """Return the message inside a google.protobuf.Any; ``None`` for a kind we do not know."""
    kind = getattr(kinds, detail.TypeName().removeprefix("google.rpc."), None)
    return kind.FromString(detail.value) if kind else None
