"""A call that runs, as its log line, its metrics and its trace show it; the code that runs it notes what it does."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from elman_server.domain.owner import id_of


@dataclass(slots=True, eq=False)
class Call:
    """What is known of one call.

    Attributes:
        method: the full name, `/elman.v1.GenerationService/Generate`.
        request_id: the caller's or a new one.
        peer: the caller's address, as gRPC writes it.
        code, reason: the outcome; the reason is that of the error.
        begin: seconds of the monotonic clock.
        principal: who calls; "" where nobody has to say so.
        trace_id: of the caller's trace, 32 hex digits; "" without one.
        session, model: names without their collection; "" if the call has none.
        num_read, num_sampled: characters of its turns.
        finish: why its last turn ended.
        turn_begin: when its present turn began, by the same clock.
        last_text: when that turn last gave text to gRPC; 0 before its first.
    """

    method: str = ""
    request_id: str = ""
    peer: str = ""
    code: str = "OK"
    reason: str = ""
    begin: float = field(default_factory=time.monotonic)
    principal: str = ""
    trace_id: str = ""
    session: str = ""
    model: str = ""
    num_read: int = 0
    num_sampled: int = 0
    finish: str = ""
    turn_begin: float = 0.0
    last_text: float = 0.0

    def begin_turn(self, session: str | None) -> None:
        """Note that a turn begins, on the session of this key or on none."""
        self.session, self.finish = id_of(session or ""), ""
        self.turn_begin, self.last_text = time.monotonic(), 0.0


_current: ContextVar[Call | None] = ContextVar("elman_call", default=None)


def begin_call(call: Call | None) -> None:
    """Let `call` be the present one, for this task and those that it starts; None: there is none any more."""
    _current.set(call)


def present_call() -> Call | None:
    """Return the call that this task works for."""
    return _current.get()


def this_call() -> Call:
    """Return the call that this task works for; outside of any, one that nobody looks at."""
    return _current.get() or Call()
