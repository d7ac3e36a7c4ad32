"""Fifty clients that do at random whatever can be done to five hundred sessions, and write down what they see.

What each client asks for follows from a seed; what meets what is up to the machine.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from elman_client import AsyncClient, AsyncSession, Chunk, ElmanError, Finished, OnAbort, SessionInfo, Started
from tests.isolation.calls import ENDS, Call
from tests.models import CHARACTERS
from tests.oracle import Draws

PATIENCE: Final = 100.0
HOUR: Final = 3600.0
NUM_HOT: Final = 25  # sessions that half of all calls go to, so that they meet
SHARES: Final = {
    "generate": 24,
    "leave": 12,
    "create": 12,
    "append": 10,
    "cancel": 10,
    "rewind": 10,
    "fork": 8,
    "delete": 5,
    "expire": 4,
    "get": 3,
    "transcript": 2,
}


class Crowd:
    """Clients, the sessions that they know of, and their calls.

    Attributes:
        calls: all of them, in the order of their ends.
        models: names of what is served.
    """

    def __init__(self, target: str, models: Sequence[str], *, seed: int, num_clients: int, num_sessions: int) -> None:
        self._target, self.models, self._seed, self._num_clients = target, models, seed, num_clients
        self._slots = [f"s-{number:04}" for number in range(num_sessions)]
        self._positions: dict[str, int] = {}
        self._etags: dict[str, str] = {}
        self._gone: set[str] = set()
        self._running: Counter[str] = Counter()
        self._moments = itertools.count(1)
        self._names = itertools.count(num_sessions)
        self.calls: list[Call] = []

    async def work(self, num_operations: int) -> None:
        """Let all clients do what they do."""
        share, rest = divmod(num_operations, self._num_clients)
        await asyncio.gather(*(self._client(number, share + (number < rest)) for number in range(self._num_clients)))

    async def look(self, names: Sequence[str]) -> None:
        """Look at sessions and read their transcripts."""
        async with AsyncClient(self._target, timeout=PATIENCE, retry_seconds=0) as client:
            for kind in ("get", "transcript"):
                calls = [Call(kind, name) for name in names]
                for start in range(0, len(calls), self._num_clients):
                    some = calls[start : start + self._num_clients]
                    await asyncio.gather(*(self._do(client, call) for call in some))

    async def _client(self, number: int, num_operations: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        mine = self._slots[number :: self._num_clients]
        async with AsyncClient(self._target, timeout=PATIENCE, retry_seconds=0) as client:
            for at in range(num_operations):
                kind = "create" if at < len(mine) else chance.choices(*zip(*SHARES.items(), strict=True))[0]
                slot = self._slots.index(mine[at]) if at < len(mine) else self._choose(chance)
                await self._do(client, self._plan(chance, kind, slot), slot)

    def _choose(self, chance: random.Random) -> int:
        return chance.randrange(NUM_HOT if chance.random() < 0.5 else len(self._slots))

    def _plan(self, chance: random.Random, kind: str, slot: int) -> Call:
        """Say what to ask; every call takes the same numbers from `chance`."""
        model, seed, fraction, dice = (
            chance.choice(self.models),
            chance.getrandbits(64),
            chance.random(),
            chance.random(),
        )
        prompt = "".join(chance.choices(CHARACTERS, k=chance.randint(1, 20)))
        draws = _draws(chance, seed)
        length, long = chance.randint(1, 40), chance.randint(200, 600)
        if kind == "cancel" and self._running:  # one that can be
            name = sorted(self._running)[int(fraction * len(self._running))]
        elif kind == "create" and dice < 0.5 and self._slots[slot] in self._positions:
            name = self._slots[slot] = f"s-{next(self._names):04}"
        else:
            name = self._slots[slot]
        if name in self._gone and dice < 0.8:
            kind = "create"
        etag = self._etags.get(name, "") if dice < 0.1 else ""
        position = int(fraction * (self._positions.get(name, 0) + 2))
        asked: dict[str, dict[str, Any]] = {
            "create": {"model": model, "ttl": HOUR},
            "append": {"prompt": prompt},
            "generate": {"prompt": prompt, "draws": draws, "max_chars": long if dice < 0.2 else length, "etag": etag},
            "leave": {"prompt": prompt, "draws": draws, "max_chars": long, "keep": dice < 0.8, "is_cut": True},
            "fork": {"position": None if dice < 0.3 else position},
            "rewind": {"position": position, "etag": etag},
            "expire": {"ttl": fraction / 20 + 0.001},
            "delete": {"etag": etag},
        }
        return Call("generate" if kind == "leave" else kind, name, **asked.get(kind, {}))

    async def _do(self, client: AsyncClient, call: Call, slot: int = 0) -> None:
        session = client.session(call.session)
        call.began, call.begin = next(self._moments), time.time()
        try:
            await self._ask(client, session, call)
        except ElmanError as error:
            call.error = error.reason or f"{error.code}: {error}"
        call.ended, call.end = next(self._moments), time.time()
        self.calls.append(call)
        if call.error in ENDS or (call.kind == "delete" and not call.error):
            self._gone.add(call.session)
        if call.info is not None:
            self._note(call.info)
            if call.kind == "fork":
                self._slots[slot] = _id(call.info)
        if call.after is not None:
            self._positions[call.session], _, self._etags[call.session] = call.after

    def _note(self, info: SessionInfo) -> None:
        self._positions[_id(info)], self._etags[_id(info)] = info.position, info.etag
        self._gone.discard(_id(info))

    async def _ask(self, client: AsyncClient, session: AsyncSession, call: Call) -> None:  # noqa: C901  a case a kind
        ttl, etag = timedelta(seconds=call.ttl), call.etag or None
        match call.kind:
            case "create":
                made = await client.create_session(call.model, session_id=call.session, seed=1, ttl=ttl)
                call.info = made.info
            case "append":
                call.info = (await session.append(call.prompt)).session
                call.start = call.info.position - len(call.prompt)
                call.after = (call.info.position, call.info.state_digest, call.info.etag)
            case "generate":
                await self._generate(session, call)
            case "cancel":
                call.info = await session.cancel()
            case "fork":
                (child,) = await session.fork(call.position)
                call.info = child.info
            case "rewind":
                assert call.position is not None
                call.info = await session.rewind(call.position, etag=etag)
            case "expire":
                call.info = await session.update(ttl=ttl)
            case "delete":
                await session.delete(etag=etag)
            case "get":
                call.info = await session.refresh()
            case "transcript":
                call.transcript = await session.transcript()

    async def _generate(self, session: AsyncSession, call: Call) -> None:
        assert call.draws is not None
        draws = {key: value for key, value in vars(call.draws).items() if value not in {None, ""}}
        turn = session.generate(
            call.prompt,
            **draws,
            max_chars=call.max_chars,
            chunk_chars=7 if call.is_cut else None,
            on_abort=OnAbort.KEEP_PARTIAL if call.keep else OnAbort.ROLLBACK,
            etag=call.etag or None,
        )
        self._running[call.session] += 1
        is_cut, call.is_cut = call.is_cut, False
        try:
            async for event in turn.events():
                if isinstance(event, Started):
                    call.start = event.start_position
                elif isinstance(event, Chunk):
                    call.text += event.text
                    if is_cut:
                        call.is_cut = True
                        break
                elif isinstance(event, Finished):
                    call.reason = event.finish_reason.value
                    call.after = (event.position, event.state_digest, event.etag)
        finally:
            self._running -= Counter([call.session])
        if call.is_cut:
            await turn.aclose()
            with suppress(ElmanError):  # nobody is there any more: the turn is over all the same
                await session.cancel()


def names_of(calls: Sequence[Call]) -> list[str]:
    """Return every session that was named or made, those that others were made from first."""
    names: dict[str, None] = {}
    for call in sorted(calls, key=lambda call: call.ended):
        names.setdefault(call.session)
        if call.kind == "fork" and call.info is not None:
            names.setdefault(_id(call.info))
    return list(names)


def child_of(call: Call) -> str | None:
    """Return the session that a fork made."""
    return _id(call.info) if call.kind == "fork" and call.info is not None else None


def _id(info: SessionInfo) -> str:
    return info.name.removeprefix("sessions/")


def _draws(chance: random.Random, seed: int) -> Draws:
    penalty = chance.choice([1.0, 1.0, 1.0, 1.3])
    return Draws(
        seed=seed,
        temperature=chance.choice([0.0, 0.5, 0.8, 1.0, 1.0, 1.5]),
        top_k=chance.choice([None, None, 3, 30]),
        top_p=chance.choice([None, None, 0.9]),
        min_p=chance.choice([None, None, 0.05]),
        repetition_penalty=penalty,
        repetition_window=chance.choice([5, 64]),
        banned_characters=chance.choice(["", "", "abc"]),
    )
