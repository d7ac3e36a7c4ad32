"""Calls as a client saw them: what was asked, when, and what came of it."""

from dataclasses import dataclass, field
from typing import Final

from elman_client import SessionInfo, Transcript
from tests.oracle import Draws

NEVER_THERE: Final = "SESSION_NOT_FOUND"
ENDS: Final = frozenset({NEVER_THERE, "SESSION_EXPIRED", "SESSION_EVICTED"})  # reasons of who is not there
TURNS: Final = frozenset({"append", "generate"})
WRITES: Final = TURNS | {"create", "delete", "rewind", "expire"}


@dataclass(eq=False)
class Call:
    """One call on one session.

    Attributes:
        kind: `create`, `append`, `generate`, `cancel`, `fork`, `rewind`, `expire`, `delete`, `get` or `transcript`.
        session: its id.
        began, ended: its places in the order of all beginnings and ends.
        begin, end: unix seconds.
        position: that was asked for; None: the present one.
        ttl: seconds; of a session that is made, or of one that shall expire.
        error: the reason of its refusal; "": it was done.
        text: what arrived.
        start: the session's position before a turn that was begun.
        is_cut: the reader left after `text`.
        reason: why the turn ended, if its reader was told.
        info: the session after it; of a fork the new one.
        after: position, digest and etag after a turn that told them.
    """

    kind: str
    session: str
    model: str = ""
    prompt: str = ""
    draws: Draws | None = None
    max_chars: int = 0
    keep: bool = True
    position: int | None = None
    ttl: float = 0.0
    etag: str = ""
    began: int = 0
    ended: int = 0
    begin: float = 0.0
    end: float = 0.0
    error: str = ""
    text: str = ""
    start: int | None = None
    is_cut: bool = False
    reason: str = ""
    info: SessionInfo | None = None
    after: tuple[int, str, str] | None = None
    transcript: Transcript | None = None
    beside: "list[Call]" = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        asked = f"{self.kind} {self.prompt!a} {self.max_chars} {self.position} {self.draws} etag={self.etag}"
        told = self.error or f"{self.text!a} {self.start} {self.reason} {self.after} cut={self.is_cut}"
        info = f"{self.info.name} {self.info.position} {self.info.turn_count} {self.info.etag}" if self.info else ""
        return f"[{self.began}, {self.ended}] {asked} -> {told} {info}"


def find_beside(calls: list[Call]) -> None:
    """Tell each call of one session which others ran at the same time."""
    running: list[Call] = []
    for call in calls:
        call.beside = []
    for call in sorted(calls, key=lambda call: call.began):
        running = [other for other in running if other.ended > call.began]
        for other in running:
            other.beside.append(call)
            call.beside.append(other)
        running.append(call)
