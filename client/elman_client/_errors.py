"""What can go wrong, as one tree.

::

    ElmanError                              any error of the server or of the connection to it
    ├── InvalidArgumentError                a field is wrong: see field_violations
    │   └── CharacterNotInVocabularyError   the model has no such character
    ├── NotFoundError
    │   ├── SessionNotFoundError            no such session: never created, or deleted
    │   ├── SessionExpiredError             it was idle for too long, or too old
    │   ├── SessionEvictedError             the server evicted it to free memory
    │   ├── TurnNotFoundError               the session has no turn with that request id
    │   └── ModelNotFoundError              the server does not serve that model
    ├── UnauthenticatedError                the server does not know the caller: a token or certificate is wrong
    ├── PermissionDeniedError               the caller may not do this
    ├── AlreadyExistsError                  the chosen session id is taken
    ├── FailedPreconditionError
    ├── EtagMismatchError                   the session has changed: see current_etag
    ├── LeaseLostError                      another call took over the turn
    ├── OutOfRangeError                     past the transcript's end: see valid_range
    ├── ResourceExhaustedError              a quota is used up: see retry_after
    ├── UnavailableError                    overloaded, draining or unreachable: see retry_after
    │   └── SessionBusyError                a turn is running: see retry_after
    ├── DeadlineExceededError               the call's timeout passed
    ├── CallCancelledError                  the call was cancelled while it ran
    ├── DataLossError                       what the server had stored is damaged
    ├── UnimplementedError                  the server does not have this method
    └── InternalError                       the server's own fault: report the request_id

A value of the wrong Python type is a plain :class:`TypeError` and is never sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True)
class ErrorDetails:
    """What a status carries besides its sentence; empty where the server sent nothing.

    Attributes:
        field_violations: The fields that are wrong.
        metadata: The values that come with the reason, such as the current etag.
        retry_after: Seconds to wait before another try.
        resource: The name of the thing that the error is about.
        quotas: The quotas that are used up, one sentence each.
    """

    field_violations: tuple[FieldViolation, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    retry_after: float | None = None
    resource: str = ""
    quotas: tuple[str, ...] = ()


class ElmanError(Exception):
    """Root of the tree.

    Attributes:
        code: Name of the gRPC status, such as ``NOT_FOUND``.
        reason: The server's own name for the case, such as ``SESSION_EXPIRED``; empty where the
            error did not come from an elman server.
        message: What happened, one sentence.
        request_id: What to look for in the server's log; empty if nothing was sent.
        details: What else the server sent.
        next_step: What to do where the server's own sentence does not say it.
    """

    code: str = "UNKNOWN"
    next_step: ClassVar[str] = "try again; if it happens again, contact the operator of the server"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str = "",
        request_id: str = "",
        details: ErrorDetails | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason
        self.request_id = request_id
        self.details = details or ErrorDetails()

    @property
    def field_violations(self) -> tuple[FieldViolation, ...]:
        """The fields that are wrong."""
        return self.details.field_violations

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before another try, if the server sent it."""
        return self.details.retry_after


class InvalidArgumentError(ElmanError):
    """A field is out of range, empty or malformed: ``field_violations`` says which and why."""

    code = "INVALID_ARGUMENT"
    next_step = "correct the request; trying it again as it is will not help"


class CharacterNotInVocabularyError(InvalidArgumentError):
    """The text has a character outside the model's vocabulary; ``field_violations`` says which and where.

    Leave it out, or pass ``unknown_characters="skip"`` or ``ReplaceWith("?")``.
    """


class NotFoundError(ElmanError):
    """The named thing does not exist."""

    code = "NOT_FOUND"
    next_step = "check the name"


class SessionNotFoundError(NotFoundError):
    """No such session: it was never created, or it was deleted. Create a new one."""


class SessionExpiredError(NotFoundError):
    """The session was idle for too long, or too old. Create a new one, with a longer ttl."""


class SessionEvictedError(NotFoundError):
    """The server evicted the session to free memory. Create a new one."""


class TurnNotFoundError(NotFoundError):
    """The session has no turn with that request id: the turn kept nothing, or is too old."""


class ModelNotFoundError(NotFoundError):
    """The server does not serve that model: see ``list_models``."""


class UnauthenticatedError(ElmanError):
    """The server does not know the caller: the token or certificate is missing, wrong, expired or revoked."""

    code = "UNAUTHENTICATED"
    next_step = "send a token that the server knows"


class PermissionDeniedError(ElmanError):
    """The server knows the caller, who may not do this."""

    code = "PERMISSION_DENIED"
    next_step = "ask the operator of the server"


class AlreadyExistsError(ElmanError):
    """The chosen session id is taken. Choose another one, or attach to it."""

    code = "ALREADY_EXISTS"
    next_step = "choose another name"


class FailedPreconditionError(ElmanError):
    """The state of the thing does not allow the call."""

    code = "FAILED_PRECONDITION"
    next_step = "check its state first"


class EtagMismatchError(ElmanError):
    """The session has changed since you read it. Read it again, then decide."""

    code = "ABORTED"

    @property
    def current_etag(self) -> str:
        """The session's current etag."""
        return self.details.metadata.get("etag", "")


class LeaseLostError(ElmanError):
    """Another call took over the turn: ``resume`` with its request id, say. That stream has the rest of the text."""

    code = "ABORTED"


class OutOfRangeError(ElmanError):
    """A position lies past the end of the transcript: ``valid_range`` has the valid positions."""

    code = "OUT_OF_RANGE"
    next_step = "request less"

    @property
    def valid_range(self) -> tuple[int, int] | None:
        """First position and one past the last, if the server sent it."""
        start, end = (self.details.metadata.get(key, "") for key in ("start", "end"))
        return (int(start), int(end)) if start.isdecimal() and end.isdecimal() else None


class ResourceExhaustedError(ElmanError):
    """A quota is used up. Free something, or try again after ``retry_after`` seconds."""

    code = "RESOURCE_EXHAUSTED"
    next_step = "request less, or try again later"


class UnavailableError(ElmanError):
    """The server is overloaded, draining, restarting or cannot be reached.

    Try again after ``retry_after`` seconds.
    """

    code = "UNAVAILABLE"
    next_step = "is elman-server running there? try again in a moment"


class SessionBusyError(UnavailableError):
    """A turn is running on the session. Wait for it (``retry_after``) or ``cancel`` it."""


class DeadlineExceededError(ElmanError):
    """The call's timeout passed. Try again with a longer one."""

    code = "DEADLINE_EXCEEDED"
    next_step = "try again with a longer timeout"


class CallCancelledError(ElmanError):
    """The call was cancelled while it ran, by the server or by closing the client.

    Cancelling your own task raises :class:`asyncio.CancelledError`, as always.
    """

    code = "CANCELLED"
    next_step = "was the client closed while the call was running?"


class DataLossError(ElmanError):
    """What the server had stored is damaged. Create a new session."""

    code = "DATA_LOSS"
    next_step = "create a new session"


class UnimplementedError(ElmanError):
    """The server does not have this method. Is it an elman server, and as new as this client?"""

    code = "UNIMPLEMENTED"
    next_step = "is it an elman server, and as new as this client?"


class InternalError(ElmanError):
    """The server's own fault. Its log has the cause under ``request_id``."""

    code = "INTERNAL"
    next_step = "the server's log has the cause under the request id"
