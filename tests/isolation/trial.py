"""A trial: the crowd at work on a real server, and then everything that it saw held against the plain model."""

import asyncio
import bisect
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from elman_client import AsyncClient
from tests.isolation.calls import Call, find_beside
from tests.isolation.crowd import PATIENCE, Crowd, child_of, names_of
from tests.isolation.history import explained
from tests.isolation.plain import Plain, World
from tests.oracle import Oracle
from tests.server_process import ServerProcess

MODELS: Final = ("gru", "lstm", "elman")
NUM_CLIENTS, NUM_SESSIONS, ROOM = 50, 500, 450  # room: for sessions in memory, so that some are evicted


@dataclass
class Report:
    """What was done and compared.

    Attributes:
        outcomes: how often each kind of call ended how.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    num_sessions: int = 0
    num_alive: int = 0
    num_turns_replayed: int = 0
    num_chars_compared: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{number:6} {kind} {outcome or 'done'}" for (kind, outcome), number in sorted(self.outcomes.items())]
        lines += [
            f"{self.num_sessions} sessions, of which {self.num_alive} are left; {self.num_chars_compared} characters",
            f"in their {self.num_turns_replayed} turns are equal as told, kept, replayed and worked out alone",
            ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items()),
        ]
        return "\n".join(lines)


def run(models: Path, store: str, *, num_operations: int, seed: int) -> Report:
    """Run a trial; raise AssertionError if anything is not as the plain model has it."""
    report, begin = Report(), time.perf_counter()
    flags = ("--store", store, "--max-sessions", str(ROOM if store == "memory:" else 10**6))
    with ServerProcess(models, *flags) as server:
        crowd = Crowd(server.address, MODELS, seed=seed, num_clients=NUM_CLIENTS, num_sessions=NUM_SESSIONS)
        asyncio.run(crowd.work(num_operations))
        report.seconds["work"] = time.perf_counter() - begin
        report.outcomes = Counter((_kind(call), _outcome(call)) for call in crowd.calls)
        names = names_of(crowd.calls)
        asyncio.run(crowd.look(names))
        ends = check(crowd.calls, names, Oracle.of(models, MODELS))
        report.seconds["check"] = time.perf_counter() - begin - report.seconds["work"]
        alive = [name for name, plain in ends.items() if plain.point is not None]
        report.num_sessions, report.num_alive = len(names), len(alive)
        report.num_chars_compared = sum(plain.point.position for plain in ends.values() if plain.point)
        asyncio.run(_replay(server.address, alive, ends, report))
        report.seconds["replay"] = time.perf_counter() - begin - sum(report.seconds.values())
    return report


def collected(models: Path, *, num_operations: int, num_sessions: int, seed: int) -> list[Call]:
    """Return what a crowd saw."""
    with ServerProcess(models) as server:
        crowd = Crowd(server.address, MODELS, seed=seed, num_clients=NUM_CLIENTS, num_sessions=num_sessions)
        asyncio.run(crowd.work(num_operations))
        asyncio.run(crowd.look(names_of(crowd.calls)))
    check(crowd.calls, names_of(crowd.calls), Oracle.of(models, MODELS))
    return crowd.calls


def check(calls: list[Call], names: Sequence[str], oracles: dict[str, Oracle]) -> dict[str, Plain]:
    """Explain every session's calls; return what each is in the end."""
    by_session: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_session[call.session].append(call)
    forks: defaultdict[str, set[Plain]] = defaultdict(set)
    beginnings = {name: oracle.beginning for name, oracle in oracles.items()}
    uses = Uses(calls)

    def keep(call: Call, new: Plain) -> None:
        child = child_of(call)
        assert child is not None
        forks[child].add(new)

    ends = {}
    for name in names:
        mine = by_session[name]
        find_beside(mine)
        seen = {call.start for call in mine if call.start is not None}
        seen |= {call.info.position for call in mine if call.info is not None}
        seen |= {call.after[0] for call in mine if call.after is not None}
        seen |= {call.transcript.end for call in mine if call.transcript is not None}
        world = World(beginnings, uses.may_evict, frozenset(seen), keep)
        last = explained(mine, forks.get(name, {Plain()}), world)
        assert len({plain.point for plain in last}) == 1  # they were looked at
        ends[name] = next(iter(last))
    return ends


class Uses:
    """Which sessions were used when: an evicted one was the least recently used."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls  # in the order of their ends
        self._ends = [call.ended for call in calls]

    def may_evict(self, call: Call) -> bool:
        """Whether so many others were used since a session was, that it may have been evicted before a call's end."""
        enough = ROOM - 2 * NUM_CLIENTS  # for calls that had not ended then, or not begun
        others: set[str] = set()
        for other in reversed(self._calls[: bisect.bisect_left(self._ends, call.ended)]):
            if len(others) >= enough or (_touches(other, call.session) and other.ended < call.began):
                break
            others |= {other.session, child_of(other) or other.session} - {call.session}
        return len(others) >= enough


def _touches(call: Call, session: str) -> bool:
    return not call.error and (call.session == session or child_of(call) == session)


async def _replay(target: str, alive: Sequence[str], ends: dict[str, Plain], report: Report) -> None:
    """Let the server replay each session, with no other beside it, and list them all."""
    async with AsyncClient(target, timeout=PATIENCE, retry_seconds=0) as client:
        for name in alive:
            turns = [turn async for turn in client.session(name).replay()]
            assert all(turn.is_equal and turn.is_fingerprint_equal for turn in turns), name
            expected = [turn[2] for turn in ends[name].turns]
            assert [turn.turn.end for turn in turns] == expected
            report.num_turns_replayed += len(turns)
        listed = {info.name.removeprefix("sessions/") async for info in client.list_sessions()}
        assert listed == set(alive)


def _kind(call: Call) -> str:
    return "leave" if call.is_cut else call.kind


def _outcome(call: Call) -> str:
    return call.error or (call.reason if call.reason == "CANCELLED" else "")
