"""What an event's id says, so that a stream that broke can continue exactly."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from elman_client import InvalidArgumentError
from elman_web.dialect.requests import NEW_SESSION, Generation

_COUNTS: Final = r"(?P<counts>\d{1,15}(?:\.\d{1,15}){0,15}|)"
_TEXT: Final = re.compile(rf"text-(?P<seed>\d{{1,20}})-(?P<digest>[0-9a-f]{{16}})@{_COUNTS}")
_TURN: Final = re.compile(rf"turn-(?P<request_id>[0-9a-f-]{{36}})-(?P<session>[a-z0-9-]{{4,63}})@{_COUNTS}")


@dataclass(frozen=True)
class TextId:
    """Up to where a reader has texts that no session keeps: they are generated again, without what is known.

    Attributes:
        seed: What they follow from.
        digest: Of the request, which is sent again.
        counts: Characters that the reader has, of each choice.
    """

    seed: int
    digest: str
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return f"text-{self.seed}-{self.digest}@{'.'.join(map(str, self.counts))}"


@dataclass(frozen=True)
class TurnId:
    """Up to where a reader has a session's turn, which the server keeps and continues.

    Attributes:
        request_id: Of the turn.
        session: The last part of the session's name.
        position: The session's, after the last character that the reader has; None: it has none.
    """

    request_id: str
    session: str
    position: int | None

    def __str__(self) -> str:
        return f"turn-{self.request_id}-{self.session}@{'' if self.position is None else self.position}"


def text_id(last_event_id: str, request: Generation, num_choices: int) -> TextId:
    """Return what a reader of the answer to `request` has; raises InvalidArgumentError if the id is not of one."""
    found = _TEXT.fullmatch(last_event_id)
    counts = tuple(map(int, found["counts"].split("."))) if found and found["counts"] else ()
    if (
        found is None
        or found["digest"] != digest_of(request)
        or len(counts) != num_choices
        or int(found["seed"]) >= 2**64
    ):
        raise _error("is not of an event of this request: send the same body again")
    return TextId(int(found["seed"]), found["digest"], counts)


def turn_id(last_event_id: str, request: Generation) -> TurnId:
    """Return what a reader of a session's turn has; raises InvalidArgumentError if the id is not of one."""
    found = _TURN.fullmatch(last_event_id)
    if found is None or request.session not in {NEW_SESSION, found["session"], f"sessions/{found['session']}"}:
        raise _error("is not of an event of this session")
    if request.request_id not in {None, found["request_id"]}:
        raise _error("names another turn than request_id")
    position = int(found["counts"]) if found["counts"].isdecimal() else None
    return TurnId(found["request_id"], found["session"], position)


def digest_of(request: Generation) -> str:
    """Return what two requests with the same body share."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:16]


def _error(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"Last-Event-ID {message}", reason="INVALID_EVENT_ID")
