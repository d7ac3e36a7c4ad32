"""Errors: what can go wrong, in the domain's words. `grpc/status.py` maps each to a gRPC status.

ServerError
├── SettingsError               at start: a setting is out of range
├── ArtefactError               at start: a model file cannot be served
├── BackupError                 a copy of the sessions cannot be made or put back
├── InvalidFieldError           a value of the request is wrong
│   ├── ValueRangeError         a number is out of range
│   └── UnknownCharacterError   a character is not in the model's vocabulary
├── UnauthenticatedError        nobody knows the caller
├── PermissionDeniedError       the caller may not do this
├── NotThereError
│   ├── ModelNotFoundError
│   ├── SessionNotFoundError
│   ├── SessionExpiredError
│   ├── SessionEvictedError
│   └── TurnNotFoundError       no turn of the session has that request id
├── SessionExistsError          the chosen id is taken
├── EtagMismatchError           the session is not what the caller saw
├── RevisionMismatchError       another writer changed the session in the store; callers never see it
├── LeaseLostError              another call continues the turn, or has ended it
├── TurnCancelledError          somebody has ended the turn with Cancel
├── StalledReaderError          the reader of a stream took nothing for a long time
├── ModelMismatchError          the session belongs to a version that is not served
├── SessionFullError            the session has as much text as one may have
├── GatesAbsentError            a model's gates are not known, or its weights are too many
├── PositionOutOfRangeError     past the end of the transcript
├── RetryableError              the same request may succeed later
│   ├── SessionBusyError        a turn is running
│   ├── QuotaError              a limit on how many may be in use is reached
│   │   └── OwnQuotaError       it is the caller's own
│   └── UnavailableError
│       ├── StartingError
│       ├── OverloadedError
│       ├── DrainingError
│       ├── EngineRestartedError
│       ├── StoreUnavailableError
│       │   └── StoreFullError  its disk has no room
│       └── IssuerUnavailableError
├── CorruptRecordError          a stored session does not match its checksum
└── NotFiniteError              the model computed NaN or infinity
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman_server.domain.owner import id_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class ServerError(Exception):
    """Root of all errors that the server raises on purpose."""


class SettingsError(ServerError):
    """A setting is unknown or out of range; the message names it, its value and the range."""


class ArtefactError(ServerError):
    """A model file cannot be served; the message says why."""


class BackupError(ServerError):
    """A copy of the sessions cannot be made or put back; the message says why."""


class InvalidFieldError(ServerError):
    """A value of the request is wrong.

    Attributes:
        field: path of the field, as in the request (`sampling.temperature`).
        description: what is wrong and what is allowed, one sentence.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class ValueRangeError(InvalidFieldError):
    """A number of the request is out of range.

    Attributes:
        value: the number.
        low, high: the limits, as text: "inf" is any finite number.
    """

    def __init__(self, field: str, value: float, low: str, high: str, allowed: str) -> None:
        super().__init__(field, f"is {value}; allowed is {allowed}")
        self.value = value
        self.low = low
        self.high = high


class UnknownCharacterError(InvalidFieldError):
    """A text holds characters that are not in the model's vocabulary.

    Attributes:
        characters: the first of them, each with its index in the text (code points from 0).
    """

    def __init__(self, field: str, characters: Sequence[tuple[str, int]], total: int) -> None:
        shown = ", ".join(f"{character!a} at {index}" for character, index in characters)
        more = f" and {total - len(characters)} more" if total > len(characters) else ""
        super().__init__(
            field,
            f"holds characters that are not in the vocabulary: {shown}{more}; remove them, "
            "or let unknown_characters skip or replace those of a prompt or text",
        )
        self.characters = tuple(characters)


class UnauthenticatedError(ServerError):
    """Nobody knows the caller; the message never holds what was sent."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; send `authorization: Bearer TOKEN` with a token that this server knows")


class PermissionDeniedError(ServerError):
    """The caller may not do this.

    Attributes:
        scope: what is missing.
    """

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs the scope {scope}, which you do not have; contact the operator")
        self.scope = scope


class NotThereError(ServerError):
    """A resource does not exist.

    Attributes:
        resource: its full name, as the caller gave it.
    """

    def __init__(self, resource: str, message: str) -> None:
        self.resource = _shown(resource)
        super().__init__(f"{self.resource} {message}")


class ModelNotFoundError(NotThereError):
    """The server does not serve that model or version."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "is not served here; list the models to see which are")


class SessionNotFoundError(NotThereError):
    """There never was a session of that name, or it was deleted."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "does not exist; create it first")


class SessionExpiredError(NotThereError):
    """The session was idle for longer than its ttl, or is past its expire_time."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "has expired; create a new session, with a longer ttl")


class SessionEvictedError(NotThereError):
    """The session was the least recently used one when memory was needed."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "was evicted to free memory; create a new session")


class TurnNotFoundError(NotThereError):
    """No turn of the session has that request id: nothing of it was kept, or a rewind deleted it."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "has no turn with that request id; send the Generate again")


class SessionExistsError(ServerError):
    """The chosen session id is taken.

    Attributes:
        resource: the session's full name.
    """

    def __init__(self, resource: str) -> None:
        self.resource = _shown(resource)
        super().__init__(f"{self.resource} already exists; choose another id, or leave it empty")


class EtagMismatchError(ServerError):
    """The session changed since the caller saw it.

    Attributes:
        current: its present etag.
    """

    def __init__(self, resource: str, current: str) -> None:
        super().__init__(f"{_shown(resource)} has changed; its etag is now {current}; read it again")
        self.current = current


class RevisionMismatchError(ServerError):
    """The session in the store is not the one that was read from it: read it again."""

    def __init__(self, resource: str) -> None:
        super().__init__(f"{_shown(resource)} was changed since it was read")


class LeaseLostError(ServerError):
    """This stream no longer runs the turn: another call continues it, or another server has ended it."""

    def __init__(self, resource: str) -> None:
        super().__init__(
            f"another call continues this turn of {_shown(resource)}, or has ended it; resume it to take it back"
        )


class TurnCancelledError(ServerError):
    """Somebody has ended the turn with Cancel, and its caller could not be sent a Finished."""

    def __init__(self) -> None:
        super().__init__("the turn was ended by Cancel; get the session to see what it kept")


class StalledReaderError(ServerError):
    """The reader of a stream took nothing for a long time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nothing was read of the answer for {seconds:g} s, so the call was ended; read faster")


class RetryableError(ServerError):
    """The same request may succeed later.

    Attributes:
        retry_after: seconds to wait before that.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(f"{message}; try again in {retry_after:g} s")
        self.retry_after = retry_after


class SessionBusyError(RetryableError):
    """A turn is running on the session."""

    def __init__(self, resource: str, retry_after: float = 0.1) -> None:
        super().__init__(f"a turn is running on {_shown(resource)}; wait for it, or cancel it", retry_after)


class ModelMismatchError(ServerError):
    """The session is pinned to a model version that is not served here."""


class FingerprintMismatchError(ServerError):
    """A turn cannot be continued to the text that it would have had: this server computes otherwise.

    Attributes:
        expected: the fingerprint that ran the turn.
        actual: this server's.
    """

    def __init__(self, resource: str, expected: str, actual: str) -> None:
        super().__init__(
            f"this turn of {resource} was run with the arithmetic {expected}, and this server's is {actual}: its text "
            "would differ from here on; resume it on a server with that fingerprint, or cancel it and start a new turn"
        )
        self.expected = expected
        self.actual = actual


class SessionFullError(ServerError):
    """The session has as much text, or as many turns, as one may have."""


class GatesAbsentError(ServerError):
    """The gates and weights of a model cannot be shown; the message says why."""


class PositionOutOfRangeError(ServerError):
    """A position lies outside the transcript.

    Attributes:
        field, value: which position.
        start, end: the valid range, with its end.
    """

    def __init__(self, field: str, value: int, start: int, end: int) -> None:
        super().__init__(f"{field}: is {value}; the valid range is {start} to {end}")
        self.field = field
        self.value = value
        self.start = start
        self.end = end


class QuotaError(RetryableError):
    """A limit on how many may be in use is reached.

    Attributes:
        subject: what is in use, such as `sessions`.
        limit: the most of them.
    """

    def __init__(self, subject: str, limit: int, retry_after: float) -> None:
        super().__init__(f"the server has reached its limit of {limit} {subject}", retry_after)
        self.subject = subject
        self.limit = limit


class OwnQuotaError(QuotaError):
    """A limit of the caller's own is reached."""

    def __init__(self, subject: str, limit: int, retry_after: float) -> None:
        RetryableError.__init__(self, f"you have reached your limit of {limit} {subject}", retry_after)
        self.subject = subject
        self.limit = limit


class UnavailableError(RetryableError):
    """The server cannot run the request now."""


class OverloadedError(UnavailableError):
    """Too many requests are waiting."""


class StartingError(UnavailableError):
    """The server is starting."""

    def __init__(self) -> None:
        super().__init__("the server is loading its models", 1.0)


class DeadlineError(ServerError):
    """A turn was ended and committed because the call's deadline is near."""

    def __init__(self) -> None:
        super().__init__("the call's deadline has passed; the session ends where the text that was sent ends")


class DrainingError(UnavailableError):
    """The server is shutting down."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down", 1.0)


class EngineRestartedError(UnavailableError):
    """The engine's process ended and is being restarted."""

    def __init__(self) -> None:
        super().__init__("the model's engine stopped and is being restarted", 1.0)


class StoreUnavailableError(UnavailableError):
    """The session store cannot be reached."""


class StoreFullError(StoreUnavailableError):
    """The session store has no room."""


class IssuerUnavailableError(UnavailableError):
    """The keys that tokens are checked with cannot be read."""

    def __init__(self) -> None:
        super().__init__("the keys of the tokens' issuer cannot be read", 5.0)


class CorruptRecordError(ServerError):
    """A stored session does not match its checksum or version."""


class NotFiniteError(ServerError):
    """The model's logits or state hold NaN or infinity."""


def _shown(resource: str) -> str:
    """Return a resource's name without its owner."""
    return f"sessions/{id_of(resource)}" if resource.startswith("sessions/") else resource
