"""A plain model of what a session is: a text, the turns that it came by, and what every call may do to it.

`steps` says which sessions may be there after a call, or a part of one, given what its caller saw; none: the caller saw
what no session can do.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from elman_client import SessionInfo, SessionState
from tests.isolation.calls import ENDS, NEVER_THERE, TURNS, WRITES, Call
from tests.oracle import Point

_ALWAYS: Final = (math.inf, math.inf)
_CUT: Final = 2


@dataclass(frozen=True)
class Plain:
    """A session.

    Attributes:
        point: its text and state; None: it is not there.
        gone: why it is not.
        turns: start, end of the prompt and end of each.
        etag: "": not known.
        ttl: idle seconds.
        expires: unix seconds, not before the first and not after the second.
        life: how often it was made or deleted.
        runner: the turn that runs, the life in which it began, and where.
        left: the last turn, if its reader left it, and where it began: its client may still cut it to what arrived.
    """

    point: Point | None = None
    gone: str = NEVER_THERE
    turns: tuple[tuple[int, int, int], ...] = ()
    etag: str = ""
    ttl: float = math.inf
    expires: tuple[float, float] = _ALWAYS
    life: int = 0
    runner: tuple[Call, int, Point] | None = None
    left: tuple[Call, Point] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a turn runs on it, not on one that had its name before."""
        return self.runner is not None and self.runner[1] == self.life

    def matches(self, info: SessionInfo) -> bool:
        """Whether a session that a caller saw is this one."""
        assert self.point is not None
        seen = (info.position, info.turn_count, info.state_digest)
        return seen == (self.point.position, len(self.turns), self.point.digest()) and self.has(info.etag)

    def has(self, etag: str) -> bool:
        """Whether an etag may be this one's."""
        return not self.etag or self.etag == etag

    def used(self, call: Call, ttl: float | None = None) -> "Plain":
        """Return it with its idle time begun anew by a call."""
        ttl = self.ttl if ttl is None else ttl
        return replace(self, ttl=ttl, expires=(call.begin + ttl, call.end + ttl))


@dataclass(frozen=True)
class World:
    """What a session's model has to know of the others.

    Attributes:
        beginnings: of the models' texts.
        may_evict: whether a session may have been evicted before the end of a call.
        seen: the positions that somebody saw a session at.
        forks: takes the sessions that a fork may have made.
    """

    beginnings: dict[str, Point]
    may_evict: Callable[[Call], bool]
    seen: frozenset[int]
    forks: Callable[[Call, Plain], None]


Stepped = Iterator[tuple[Plain, int | None]]  # and the part of the call that comes next, if any


def steps(now: Plain, call: Call, part: int, world: World) -> Stepped:
    """Yield what a session may be after a part of a call: 0, 1 for the end of a turn, 2 for its cut."""
    if call.error == "SESSION_BUSY":
        if any(other.kind in WRITES for other in call.beside):
            yield now, None
    elif call.error == "TURN_CANCELLED":  # of an Append nothing is kept
        if any(other.kind == "cancel" or other.is_cut for other in call.beside):
            yield now, None
    elif part == 1:
        yield from ((after, _CUT if call.is_cut else None) for after in _ends(now, call, world))
    elif part == _CUT:
        yield from _alone(_trims(now, call))
    elif call.error in ENDS:
        yield from _is_gone(now, call, world)
    elif call.kind == "create":
        yield from _alone(_creates(now, call, world))
    elif now.point is not None and _lives(now, call):
        yield from _does(now, now.point, call, world)


def _alone(all_after: Iterator[Plain]) -> Stepped:
    return ((after, None) for after in all_after)


def _lives(now: Plain, call: Call) -> bool:
    """Whether it may not be over yet; one that others use at that moment is kept."""
    return now.is_running or bool(call.beside) or call.begin < now.expires[1]


def _is_gone(now: Plain, call: Call, world: World) -> Stepped:
    if now.point is None:
        if now.gone == call.error:
            yield now, None
    elif not now.is_running and _may_vanish(now, call, world, call.error):
        yield replace(now, point=None, gone=call.error, life=now.life + 1), None
    elif call.kind in TURNS and call.error == NEVER_THERE:
        yield from _begins(now, call)  # somebody deletes it later


def _does(now: Plain, point: Point, call: Call, world: World) -> Stepped:
    if call.error == "ETAG_MISMATCH":
        if call.etag and now.etag != call.etag:
            yield now, None
    elif call.etag and not now.has(call.etag):
        return
    elif call.kind in TURNS:
        yield from _begins(now, call)
    else:
        yield from _alone(_DO[call.kind](now, point, call, world))


def _may_vanish(now: Plain, call: Call, world: World, end: str) -> bool:
    if end == "SESSION_EXPIRED":
        return call.end >= now.expires[0]
    return end == "SESSION_EVICTED" and world.may_evict(call)


def _creates(now: Plain, call: Call, world: World) -> Iterator[Plain]:
    if call.error == "SESSION_EXISTS":
        if now.point is not None and _lives(now, call):
            yield now
    elif not call.error and call.info is not None:
        may_vanish = not now.is_running and any(_may_vanish(now, call, world, end) for end in ENDS)
        point = world.beginnings[call.model]
        new = Plain(point, etag=call.info.etag, life=now.life + 1, runner=now.runner).used(call, call.ttl)
        if (now.point is None or may_vanish) and new.matches(call.info):
            yield new


# Turns


def _begins(now: Plain, call: Call) -> Stepped:
    assert now.point is not None
    if now.runner is None and call.start in {None, now.point.position}:
        yield replace(now, runner=(call, now.life, now.point)), 1


def _ends(now: Plain, call: Call, world: World) -> Iterator[Plain]:
    if now.runner is None or now.runner[0] is not call:
        return
    start = now.runner[2]
    is_there = now.is_running and now.point is not None
    after = replace(now, runner=None)
    if call.error or (call.is_cut and not is_there):  # somebody deleted the session
        if not is_there and _arrived(start, call):
            yield after
    elif is_there:
        for num_sampled in _lengths(start, call, world):
            yield from _kept(after, start, call, num_sampled)


def _lengths(start: Point, call: Call, world: World) -> list[int]:
    """Return how many characters a turn may have sampled; -1: it left no trace."""
    if not call.is_cut:
        if call.reason == "CANCELLED":
            assert any(other.kind == "cancel" or other.is_cut for other in call.beside), f"nobody cancelled: {call}"
            return [len(call.text) if call.keep and call.text else -1]
        return [call.max_chars] if len(call.text) == call.max_chars else []
    # What was delivered is what arrived, or more: who looked at the session later has seen how much.
    prompt_end = start.position + len(call.prompt)
    candidates = {position - prompt_end for position in world.seen} | {len(call.text), call.max_chars}
    if not call.keep:  # rolled back, if it had not come to its end
        return [-1, call.max_chars]
    return sorted(n for n in candidates if max(1, len(call.text)) <= n <= call.max_chars)


def _kept(after: Plain, start: Point, call: Call, num_sampled: int) -> Iterator[Plain]:
    if not _arrived(start, call):
        return
    end, prompt = start, start.read(call.prompt)
    if num_sampled >= 0:
        end = next(islice(prompt.sample(call.draws), num_sampled - 1, None)) if call.draws and num_sampled else prompt
        turn = (start.position, prompt.position, end.position)
        left = (call, start) if call.is_cut else None
        after = replace(after, point=end, turns=(*after.turns, turn), etag="", left=left).used(call)
    if call.after is not None:
        position, digest, etag = call.after
        if (position, digest) != (end.position, end.digest()) or not after.has(etag):
            return
        after = replace(after, etag=etag)
    yield after


def _trims(now: Plain, call: Call) -> Iterator[Plain]:
    """A client that left a turn early asks for what it read alone; it may be too late for that, or lost."""
    yield now
    if now.point is None or not now.turns or now.left is None or now.left[0] is not call:
        return
    start = now.left[1]
    *before, last = now.turns
    if last[0] != start.position or last[2] != now.point.position or now.is_running:
        return
    end, turns = start, tuple(before)
    if call.text and call.keep:
        assert call.draws is not None
        end = next(islice(start.read(call.prompt).sample(call.draws), len(call.text) - 1, None))
        turns = (*before, (last[0], last[1], end.position))
    yield replace(now, point=end, turns=turns, etag="", left=None).used(call)


def _arrived(start: Point, call: Call) -> bool:
    """Whether the text that arrived is the one that a turn begun there draws."""
    if call.draws is None:
        return not call.text
    sampled = islice(start.read(call.prompt).sample(call.draws), len(call.text))
    return "".join(point.oracle.characters[point.char] for point in sampled) == call.text


# The rest


def _look(now: Plain, _: Point, call: Call, __: World) -> Iterator[Plain]:
    assert call.info is not None
    if now.matches(call.info) and (call.beside or call.info.state is SessionState.ACTIVE):
        yield replace(now, etag=call.info.etag)


def _read(now: Plain, point: Point, call: Call, _: World) -> Iterator[Plain]:
    assert call.transcript is not None
    turns = tuple((turn.start, turn.prompt_end, turn.end) for turn in call.transcript.turns)
    if call.transcript.text == point.text() and turns == now.turns:
        yield now


def _fork(now: Plain, point: Point, call: Call, world: World) -> Iterator[Plain]:
    position = point.position if call.position is None else call.position
    if call.error:
        if call.error == "POSITION_OUT_OF_RANGE" and position > point.position:
            yield now
    elif position <= point.position:
        assert call.info is not None
        new = Plain(point.at(position), turns=_cut(now.turns, position), etag=call.info.etag).used(call, now.ttl)
        if new.matches(call.info):
            world.forks(call, new)
            yield now


def _rewind(now: Plain, point: Point, call: Call, _: World) -> Iterator[Plain]:
    assert call.position is not None
    if call.error:
        if call.error == "POSITION_OUT_OF_RANGE" and call.position > point.position:
            yield now
    elif call.position <= point.position and now.runner is None:
        assert call.info is not None
        turns = _cut(now.turns, call.position)
        new = replace(now, point=point.at(call.position), turns=turns, etag=call.info.etag).used(call)
        if new.matches(call.info):
            yield new


def _expire(now: Plain, _: Point, call: Call, __: World) -> Iterator[Plain]:
    assert call.info is not None
    new = replace(now, etag=call.info.etag).used(call, call.ttl)
    if new.matches(call.info):
        yield new


def _delete(now: Plain, _: Point, call: Call, __: World) -> Iterator[Plain]:
    if not call.error:
        yield Plain(life=now.life + 1, runner=now.runner)


def _cut(turns: tuple[tuple[int, int, int], ...], position: int) -> tuple[tuple[int, int, int], ...]:
    return tuple(
        (start, min(prompt_end, position), min(end, position)) for start, prompt_end, end in turns if start < position
    )


_DO: Final = {
    "get": _look,
    "cancel": _look,
    "transcript": _read,
    "fork": _fork,
    "rewind": _rewind,
    "expire": _expire,
    "delete": _delete,
}
