"""A session as callers see it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.owner import prefix_of
from elman_server.domain.state import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from elman_server.sessions import records

MAX_LABELS: Final = 16
_ID: Final = re.compile(r"[a-z0-9-]{4,63}")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_CHARS: Final = 63


class SessionStatus(enum.Enum):
    """Where a session is in its life."""

    ACTIVE = "active"  # idle, ready for a turn
    GENERATING = "generating"  # a turn is running
    EXPIRED = "expired"  # past its lifetime; only lists show it
    UNREADABLE = "unreadable"  # its record is damaged, or its key is missing; only lists show it


@dataclass(frozen=True, slots=True)
class Expiration:
    """When a session expires: after `ttl` idle seconds or at `expire_time`, unix seconds; None: the default."""

    ttl: float | None = None
    expire_time: float | None = None


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What callers see of a session; times are unix seconds, `model` is the pinned version's full name.

    Attributes:
        name: its key.
        forked_from: the session that it was made from, and the position there.
        fingerprint: of the arithmetic that ran the last turn; empty if unknown.
    """

    name: str
    model: str
    model_digest: str
    status: SessionStatus
    create_time: float
    update_time: float
    expire_time: float
    etag: str
    position: int
    turn_count: int
    state_digest: str
    seed: int
    labels: Mapping[str, str]
    forked_from: tuple[str, int] | None = None
    initial_state: str = DEFAULT
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class CommittedTurn:
    """One committed turn: positions `start` to `prompt_end` were fed, from there to `end` sampled.

    Attributes:
        index: of its first segment.
        outcome: how it ended; None: it was cut by a fork or a rewind.
    """

    start: int
    prompt_end: int
    end: int
    parameters: records.Parameters
    index: int = 0
    outcome: records.Outcome | None = None

    @property
    def seed(self) -> int:
        """The seed of the sampled text; 0 where nothing was sampled."""
        sampling = self.parameters.sampling
        return sampling.seed or 0 if sampling and self.end > self.prompt_end else 0


def turns_of(segments: Iterable[records.Segment], index: int = 0) -> list[CommittedTurn]:
    """Return the turns that segments hold; the first one begins a turn and is the session's number `index`."""
    turns: list[CommittedTurn] = []
    for number, segment in enumerate(segments, index):
        if segment.parameters is not None:
            end, parameters = segment.end, segment.parameters
            turns.append(CommittedTurn(segment.start, segment.prompt_end, end, parameters, number, segment.outcome))
        else:
            turns[-1] = replace(turns[-1], end=segment.end, outcome=segment.outcome)
    return turns


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a session has read and written from `start` to `end`."""

    text: str
    start: int
    end: int
    turns: tuple[CommittedTurn, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; an empty token ends it."""

    sessions: tuple[SessionInfo, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps an owner's sessions of a model, or of one version of it, in a state, with certain labels; None: any."""

    model: str | None = None
    version: str | None = None
    status: SessionStatus | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""

    @property
    def scope(self) -> str:
        """What a page token is bound to: filters with equal scopes keep the same sessions."""
        return f"{prefix_of(self.owner)}{self.model} {self.version} {self.status} {sorted(self.labels.items())}"

    def matches(self, head: records.Head, status: SessionStatus) -> bool:
        """Whether a session is kept."""
        return (
            self.model in {None, head.model}
            and self.version in {None, head.model_version}
            and self.status in {None, status}
            and all(head.labels.get(key) == value for key, value in self.labels.items())
        )

    @property
    def matches_unreadable(self) -> bool:
        """Whether a session is kept of which nothing is known but its name."""
        is_of_any = self.model is None and self.version is None and not self.labels
        return is_of_any and self.status in {None, SessionStatus.UNREADABLE}


@dataclass(frozen=True, slots=True)
class LabelChange:
    """How an update changes labels.

    Attributes:
        labels: to set, by key; None removes the label.
        replaces_all: whether every label that is not in `labels` is removed.
    """

    labels: Mapping[str, str | None]
    replaces_all: bool = False

    def applied(self, old: Mapping[str, str]) -> dict[str, str]:
        """Return the labels after the change."""
        kept = {} if self.replaces_all else {key: value for key, value in old.items() if key not in self.labels}
        return kept | {key: value for key, value in self.labels.items() if value is not None}


def check_id(name: str, session_id: str) -> None:
    """Refuse a chosen session id that is not short and plain."""
    if not _ID.fullmatch(session_id):
        raise InvalidFieldError(name, f"is {session_id[:80]!a}; it has to match ^{_ID.pattern}$")


def check_labels(name: str, labels: Mapping[str, str]) -> None:
    """Refuse too many labels, or too long ones."""
    if len(labels) > MAX_LABELS:
        raise InvalidFieldError(name, f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
    for key, value in labels.items():
        if not _LABEL.fullmatch(key):
            raise InvalidFieldError(name, f"has the key {key[:80]!a}; keys have to match ^{_LABEL.pattern}$")
        if len(value) > _LABEL_CHARS:
            raise InvalidFieldError(name, f"has a value of {len(value)} characters; at most {_LABEL_CHARS}")
