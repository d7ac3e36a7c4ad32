"""What can go wrong, in the domain's words. `grpc/errors.py` says which status each becomes.

ServerError
├── SettingsError               start-up: a setting is out of range
├── ArtefactError               start-up: a model file cannot be honoured
├── InvalidFieldError           the caller's value is out of range
│   └── UnknownCharacterError   the model has not that character
├── NotThereError
│   ├── ModelNotFoundError
│   ├── SessionNotFoundError
│   ├── SessionExpiredError
│   ├── SessionEvictedError
│   └── TurnNotFoundError       no turn of the session has that request id
├── SessionExistsError          the chosen id is taken
├── EtagMismatchError           the session is not what the caller saw
├── LeaseLostError              somebody else goes on with the turn, or has ended it
├── ModelMismatchError          the session belongs to a version that is not served
├── PositionOutOfRangeError     past the end of the transcript
├── RetryableError              the same request may succeed later
│   ├── SessionBusyError        a turn is running
│   ├── QuotaError              as many of something are in use as may be
│   └── UnavailableError
│       ├── StartingError
│       ├── OverloadedError
│       ├── DrainingError
│       ├── EngineRestartedError
│       └── StoreUnavailableError
├── CorruptRecordError          a stored session does not match its checksum
└── NotFiniteError              the model's arithmetic left the real numbers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ServerError(Exception):
    """Root of all errors that the server raises on purpose."""


class SettingsError(ServerError):
    """A setting is unknown or out of range; the message names it, its value and the range."""


class ArtefactError(ServerError):
    """A model file cannot be honoured; the message says why."""


class InvalidFieldError(ServerError):
    """A field of the request is out of range.

    Attributes:
        field: path of the field, as in the request (`sampling.temperature`).
        description: what is wrong and what is allowed, one sentence.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class UnknownCharacterError(InvalidFieldError):
    """A text holds characters that the model has not.

    Attributes:
        characters: the first of them, each with its index in the text (code points from 0).
    """

    def __init__(self, field: str, characters: Sequence[tuple[str, int]], total: int) -> None:
        shown = ", ".join(f"{character!a} at {index}" for character, index in characters)
        more = f" and {total - len(characters)} more" if total > len(characters) else ""
        super().__init__(
            field,
            f"the model's vocabulary has not {shown}{more}; choose SKIP or REPLACE for unknown characters",
        )
        self.characters = tuple(characters)


class NotThereError(ServerError):
    """A resource is not there.

    Attributes:
        resource: its full name, as the caller gave it.
    """

    def __init__(self, resource: str, message: str) -> None:
        super().__init__(f"{resource} {message}")
        self.resource = resource


class ModelNotFoundError(NotThereError):
    """The server does not serve that model or version."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "is not served here; list the models to see what is")


class SessionNotFoundError(NotThereError):
    """No session of that name was ever here, or it was deleted."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "does not exist; create it first")


class SessionExpiredError(NotThereError):
    """The session was not used for its time to live."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "has expired; create a new one, with a longer ttl")


class SessionEvictedError(NotThereError):
    """The session was the least recently used when room was needed."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "was evicted to make room; create a new one")


class TurnNotFoundError(NotThereError):
    """No turn of the session has that request id: it kept nothing, or a rewind has cut it."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource, "has no turn of that request id; send the turn itself again")


class SessionExistsError(ServerError):
    """The chosen session id is taken.

    Attributes:
        resource: the session's full name.
    """

    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} already exists; choose another id or leave it empty")
        self.resource = resource


class EtagMismatchError(ServerError):
    """The session changed since the caller saw it.

    Attributes:
        current: the etag that it has now.
    """

    def __init__(self, resource: str, current: str) -> None:
        super().__init__(f"{resource} changed since; its etag is now {current}")
        self.current = current


class LeaseLostError(ServerError):
    """The turn is no longer this stream's: another call goes on with it, or another server has ended it."""

    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} has another writer now, which goes on with this turn or ended it")


class RetryableError(ServerError):
    """The same request may succeed later.

    Attributes:
        retry_after: seconds to wait before the next try.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(f"{message}; try again in {retry_after:g} s")
        self.retry_after = retry_after


class SessionBusyError(RetryableError):
    """A turn is running on the session."""

    def __init__(self, resource: str, retry_after: float = 0.1) -> None:
        super().__init__(f"{resource} has a turn running, wait for it or cancel it", retry_after)


class ModelMismatchError(ServerError):
    """The session is pinned to a model version that is not served any more."""


class PositionOutOfRangeError(ServerError):
    """A position lies outside the transcript.

    Attributes:
        start, end: the valid range, end included.
    """

    def __init__(self, field: str, value: int, start: int, end: int) -> None:
        super().__init__(f"{field} is {value}, the valid range is {start} to {end}")
        self.start = start
        self.end = end


class QuotaError(RetryableError):
    """As many of something are in use as may be.

    Attributes:
        subject: what is used up, such as `sessions`.
        limit: how many there may be.
    """

    def __init__(self, subject: str, limit: int, retry_after: float) -> None:
        super().__init__(f"the server holds {limit} {subject}, its limit", retry_after)
        self.subject = subject
        self.limit = limit


class UnavailableError(RetryableError):
    """The server cannot take the request now."""


class OverloadedError(UnavailableError):
    """More requests wait than may."""


class StartingError(UnavailableError):
    """The server does not serve yet."""

    def __init__(self) -> None:
        super().__init__("the models are being loaded", 1.0)


class DrainingError(UnavailableError):
    """The server is about to stop."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down", 1.0)


class EngineRestartedError(UnavailableError):
    """The engine's process died and is being started again."""

    def __init__(self) -> None:
        super().__init__("the model's engine stopped and is being restarted", 1.0)


class StoreUnavailableError(UnavailableError):
    """The session store cannot be reached."""


class CorruptRecordError(ServerError):
    """A stored session does not match its checksum or version."""


class NotFiniteError(ServerError):
    """The model's logits or state hold NaN or infinity."""
