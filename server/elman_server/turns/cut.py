"""Cuts the last turn of a session back to the position up to which its reader read."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from elman_server.domain.errors import PositionOutOfRangeError, SessionBusyError
from elman_server.domain.events import FinishReason
from elman_server.history.service import cut_at, state_at
from elman_server.sessions import records
from elman_server.sessions.repository import FIRST_TAIL
from elman_server.sessions.service import check_position
from elman_server.sessions.session import turns_of
from elman_server.sessions.transitions import Change, new_etag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elman_server.domain.state import SessionState
    from elman_server.engine import AnyEngine
    from elman_server.sessions.records import Head
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import CommittedTurn, SessionInfo


class Tail(NamedTuple):
    """The last segments of a session; `start` is the index of the first."""

    start: int
    segments: Sequence[records.Segment]


async def cut_turn(
    sessions: Sessions, engines: Mapping[str, AnyEngine], session_id: str, position: int, request_id: bytes
) -> SessionInfo:
    """End the session's last turn at a position, as if the turn had been cancelled there; return the session.

    Args:
        sessions: where it is.
        engines: by the digest of their model.
        session_id: of an idle session.
        position: from the end of the turn's prompt to the turn's end; also its start if `request_id` names it.
        request_id: of the turn; empty: whichever is the last.

    Raises:
        PositionOutOfRangeError: the last turn does not have that position, or is another turn.
        SessionBusyError: a turn is running.
    """
    lease = await sessions.lease(session_id)
    try:
        head = (await sessions.idle(session_id)).head
        if position == head.position:
            return sessions.info(session_id, head)
        tail = await _tail(sessions, session_id, head, position)
        turn = _last_turn(head, tail, position, request_id)
        model = sessions.model_of(head)
        state = await state_at(engines[model.digest], model.start(head.initial_state), tail.segments, position)
        token = secrets.token_bytes(8)

        def change(now: Head) -> Change | None:
            if now.last_token == token:
                return None  # the store had done it when its answer was lost
            if now.open is not None or now.etag != head.etag:
                raise SessionBusyError(f"sessions/{session_id}")
            shorter, added, keep = _shortened(head, tail, turn, position, state)
            return Change(sessions.renewed(replace(shorter, last_token=token)), added, keep)

        return sessions.info(session_id, await sessions.change(session_id, change))
    finally:
        sessions.leases.release(lease)


async def _tail(sessions: Sessions, session_id: str, head: Head, position: int) -> Tail:
    """Return the last segments: with all of the last turn, and a state at or before a position."""
    size = FIRST_TAIL
    while True:
        start = max(0, head.num_segments - size)
        segments = await sessions.segments(session_id, start, head.num_segments)
        has_turn = any(segment.parameters is not None for segment in segments)
        has_state = any(segment.state is not None and segment.end <= position for segment in segments)
        if not start or (has_turn and has_state):
            return Tail(start, segments)
        size *= 8


def _last_turn(head: Head, tail: Tail, position: int, request_id: bytes) -> CommittedTurn:
    """Return the turn to cut; refuse a position that it does not have."""
    first = max((at for at, segment in enumerate(tail.segments) if segment.parameters is not None), default=0)
    turns = turns_of(tail.segments[first:], tail.start + first)
    is_named = bool(turns and request_id and turns[-1].parameters.request_id == request_id)
    if not turns or (request_id and not is_named):
        raise PositionOutOfRangeError("position", position, head.position, head.position)
    turn = turns[-1]
    if not (is_named and position == turn.start):
        # Without a name, the start may be the end of the turn that is meant: a turn of another caller followed it.
        check_position("position", position, max(turn.prompt_end, turn.start + 1), turn.end)
    return turn


def _shortened(head: Head, tail: Tail, turn: CommittedTurn, position: int, state: SessionState) -> Change:
    """Return the session with its last turn cut; a turn that is cut to nothing was never there."""
    whole, part = cut_at(tail.segments, position)
    is_empty = position == turn.start
    if not is_empty:
        last = part[0] if part else whole.pop()
        part = (replace(last, outcome=records.Outcome(FinishReason.CANCELLED, "", bytes.fromhex(state.digest()))),)
    new = replace(
        head,
        position=position,
        turn_count=head.turn_count - is_empty,
        state=state,
        etag=new_etag(),
        num_segments=tail.start + len(whole) + len(part),
        checkpoint=max((segment.end for segment in (*whole, *part) if segment.state), default=0),
        recent=[entry for entry in head.recent if not (is_empty and entry[1] == turn.index)],
    )
    return Change(new, part, keep=tail.start + len(whole))
