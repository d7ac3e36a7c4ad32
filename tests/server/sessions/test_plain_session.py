"""Sessions against a plain model of what one is: a text and the turns that it came by. Any order of anything."""

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any, ClassVar, Final, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from elman_server.domain.errors import (
    EtagMismatchError,
    InvalidFieldError,
    PositionOutOfRangeError,
    ServerError,
    SessionExpiredError,
    SessionNotFoundError,
    TurnNotFoundError,
    UnknownCharacterError,
)
from elman_server.domain.events import FinishReason
from elman_server.domain.requests import (
    AppendRequest,
    GenerateRequest,
    ResumeRequest,
    SamplingRequest,
    ScoreRequest,
    Target,
)
from elman_server.sessions.session import Expiration
from elman_server.sessions.stores import MemoryStore, SqliteStore, Store
from tests.models import CHARACTERS, tiny_model
from tests.oracle import Draws, Oracle, Point
from tests.server.house import House, collected
from tests.server.reader import Reader
from tests.server.replicas import QUICK, Replica, asked, clock_of_now

TTL: Final = 100.0  # seconds
_T = TypeVar("_T")
texts = st.text(CHARACTERS, min_size=1, max_size=12)
all_draws = st.builds(
    Draws,
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([None, None, 5]),
    top_p=st.sampled_from([None, None, 0.9]),
    min_p=st.sampled_from([None, None, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.4]),
    repetition_window=st.integers(1, 20),
)
lengths = st.integers(1, 130)


@dataclass(frozen=True)
class Turn:
    """One turn of a plain session; `request` is what it was asked for, if it can be delivered again."""

    start: int
    prompt_end: int
    end: int
    request: GenerateRequest | AppendRequest | None = None
    whole: str = ""  # what an undisturbed run would have sampled


@dataclass
class Plain:
    """A session: its text, as the point at its end, and its turns; expires at a moment."""

    point: Point
    expires: float
    turns: list[Turn] = field(default_factory=list)

    def cut(self, position: int) -> "Plain":
        """Return it as it was at a position."""
        turns = [turn for turn in self.turns if turn.start < position]
        if turns and turns[-1].end > position:
            last = turns[-1]
            turns[-1] = Turn(last.start, min(last.prompt_end, position), position)
        return Plain(self.point.at(position), self.expires, turns)


class Machine(RuleBasedStateMachine):
    """A server, restarted and killed at times, and plain sessions beside it."""

    house: ClassVar[House]
    runner: ClassVar[asyncio.Runner]
    oracle: ClassVar[Oracle]
    is_lasting: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.clock = clock_of_now()
        self.plain: dict[str, Plain] = {}
        self.gone: dict[str, type[ServerError]] = {}
        self.touched: set[str] = set()
        self.numbers = count()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run in the house's loop."""
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        """Start a server on an empty store."""
        self.store = self.open_store()
        self.serve()

    def open_store(self) -> Store:
        """Open an empty store, or a lasting one again."""
        raise NotImplementedError

    def serve(self) -> None:
        """Start a server on the store as it is."""
        self.server = Replica(self.house, QUICK, self.clock, self.store)

    def teardown(self) -> None:
        """Check every session, and close the store."""
        if hasattr(self, "store"):
            self.touched |= set(self.plain) | set(self.gone)
            self.all_is_as_it_should()
            self.run(self.store.close())

    def choose(self, number: int) -> tuple[str, Plain]:
        """Return one of the sessions."""
        name = sorted(self.plain)[number % len(self.plain)]
        self.touched.add(name)
        return name, self.plain[name]

    def use(self, plain: Plain) -> None:
        """Begin a session's idle time again."""
        plain.expires = self.clock.now + TTL

    # What can be done

    @rule(seed=st.integers(0, 2**64 - 1))
    def create(self, seed: int) -> None:
        """Make a session."""
        name = f"name-{next(self.numbers)}"
        self.run(
            self.server.sessions.create(
                model="tiny", version=None, session_id=name, seed=seed, expiration=Expiration(TTL), labels={}
            )
        )
        self.plain[name] = Plain(self.oracle.beginning, self.clock.now + TTL)
        self.touched.add(name)

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0), text=texts)
    def append(self, number: int, text: str) -> None:
        """Feed a text."""
        name, plain = self.choose(number)
        request = AppendRequest(name, text, request_id=uuid.uuid4().bytes)
        info, _ = self.run(self.server.turns.append(request))
        end = plain.point.read(text)
        assert info.state_digest == end.digest()
        plain.turns.append(Turn(plain.point.position, end.position, end.position, request))
        plain.point = end
        self.use(plain)

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0), prompt=texts | st.just(""), draws=all_draws, length=lengths)
    def generate(self, number: int, prompt: str, draws: Draws, length: int) -> None:
        """Take a turn to its end."""
        name, plain = self.choose(number)
        request = asked(name, uuid.uuid4().bytes, prompt, length, sampling_of(draws))
        if not prompt and not plain.turns:
            with pytest.raises(InvalidFieldError, match="nothing was read before"):
                self.run(self.server.generate(request))
            return
        text = self.run(self.server.generate(request))
        assert text.started is not None
        assert text.started.start_position == plain.point.position
        self.keep(plain, request, draws, length)
        assert (text.text, text.end.position) == (plain.turns[-1].whole, plain.point.position)
        assert (text.end.reason, text.end.state_digest) == (FinishReason.MAX_CHARS, plain.point.digest())

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0), prompt=texts, draws=all_draws, chunks=st.integers(1, 4), keep=st.booleans())
    def leave(self, number: int, prompt: str, draws: Draws, chunks: int, *, keep: bool) -> None:
        """Leave a turn after some chunks: what was delivered stays, or nothing."""
        name, plain = self.choose(number)
        request = asked(name, uuid.uuid4().bytes, prompt, 130, sampling_of(draws), rollback=not keep, chunk_chars=9)
        text = self.run(self.server.generate(request, stop_after=chunks))
        self.run(self.server.turns.cancel(name))
        if keep:
            self.keep(plain, request, draws, len(text.text))

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0), prompt=texts, draws=all_draws, length=st.integers(60, 400), resume=st.booleans())
    def die(self, number: int, prompt: str, draws: Draws, length: int, *, resume: bool) -> None:
        """Lose the server in the middle of a turn; another one continues it, or the lease expires."""
        name, plain = self.choose(number)
        request = asked(name, uuid.uuid4().bytes, prompt, length, sampling_of(draws), chunk_chars=20)
        delivered = self.run(self.lost(request))
        self.serve()
        if resume:
            try:
                text = self.run(self.server.resume(name, request.request_id))
            except TurnNotFoundError:  # never begun, as the store has it
                return
            self.keep(plain, request, draws, length)
            assert text.text == plain.turns[-1].whole
            return
        self.clock.now += QUICK.lease_seconds + 1
        durable = self.run(self.server.turns.cancel(name)).position - plain.point.position - len(prompt)
        if durable > 0:
            assert durable <= delivered
            self.keep(plain, request, draws, durable)

    async def lost(self, request: GenerateRequest) -> int:
        """Begin a turn, and cut its server from the store for good; return how much it had delivered."""
        reader = await Reader.of(self.server.turns, request)
        await asyncio.sleep(0)
        self.server.way.is_cut = True
        with contextlib.suppress(ServerError):
            await reader.rest()
        for lease in list(self.server.turns._runner._leases):
            await lease.done.wait()
        return len(reader.text.text)

    def keep(self, plain: Plain, request: GenerateRequest, draws: Draws, num_sampled: int) -> None:
        """Add a turn to the plain session."""
        prompt = plain.point.read(request.prompt)
        points = list(islice(prompt.sample(draws), request.stopping.max_chars or 0))
        whole = "".join(self.oracle.characters[point.char] for point in points)
        plain.turns.append(Turn(plain.point.position, prompt.position, prompt.position + num_sampled, request, whole))
        plain.point = points[num_sampled - 1] if num_sampled else prompt
        self.use(plain)

    @precondition(lambda self: any(plain.turns for plain in self.plain.values()))
    @rule(number=st.integers(0), back=st.integers(0, 8), position=st.integers(0, 400))
    def again(self, number: int, back: int, position: int) -> None:
        """Send a request again, or resume it: it is delivered again and continued, and never run twice."""
        name, plain = self.choose(number)
        known = [turn for turn in plain.turns if turn.request is not None]
        if back >= len(known):
            return
        turn = known[-1 - back]
        if isinstance(turn.request, AppendRequest):  # an imported session knows requests that named another one
            info, _ = self.run(self.server.turns.append(replace(turn.request, session=name)))
            assert info.position == plain.point.position
            return
        assert turn.request is not None
        can_go_on = turn is plain.turns[-1]
        shown = turn.whole if can_go_on else turn.whole[: turn.end - turn.prompt_end]
        start = turn.prompt_end + position % (len(shown) + 1)
        resume = ResumeRequest(name, turn.request.request_id, start)
        text = self.run(collected(self.server.turns.resume(resume)))
        assert text.text == shown[start - turn.prompt_end :]
        whole = self.run(self.server.generate(replace(turn.request, target=Target(session=name))))
        assert whole.text == shown
        if can_go_on and turn.end < turn.prompt_end + len(turn.whole):
            plain.turns[-1] = replace(turn, end=turn.prompt_end + len(turn.whole))
            plain.point = plain.point.at(turn.start).read(turn.request.prompt).read(turn.whole)
            self.use(plain)

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0), part=st.floats(0, 1), num=st.integers(1, 3))
    def fork(self, number: int, part: float, num: int) -> None:
        """Make sessions of a session's past."""
        name, plain = self.choose(number)
        position = round(part * plain.point.position)
        for info in self.run(self.server.history.fork(name, position=position, count=num)):
            child = plain.cut(position)
            child.turns = [replace(turn, request=None) for turn in child.turns]
            self.use(child)
            self.plain[info.name] = child
            self.touched.add(info.name)

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0), part=st.floats(0, 1))
    def rewind(self, number: int, part: float) -> None:
        """Take a session back."""
        name, plain = self.choose(number)
        position = round(part * plain.point.position)
        self.run(self.server.history.rewind(name, position=position, etag=""))
        self.plain[name] = plain.cut(position)
        self.use(self.plain[name])

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0))
    def move(self, number: int) -> None:
        """Export a session and import it under another name; it knows its requests still."""
        name, plain = self.choose(number)
        other = f"name-{next(self.numbers)}"
        self.run(self.server.history.restore(self.run(self.server.history.export(name)), other))
        self.plain[other] = Plain(plain.point, self.clock.now + TTL, list(plain.turns))
        self.touched.add(other)

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0))
    def delete(self, number: int) -> None:
        """Delete a session."""
        name, _ = self.choose(number)
        self.run(self.server.sessions.delete(name, etag=""))
        del self.plain[name]
        self.gone[name] = SessionNotFoundError

    @rule(seconds=st.sampled_from([1.0, 20.0, 50.0, TTL + 1]))
    def wait(self, seconds: float) -> None:
        """Let time pass; sessions that were idle for too long expire."""
        self.clock.now += seconds
        for name in [name for name, plain in self.plain.items() if plain.expires <= self.clock.now]:
            del self.plain[name]
            self.gone[name] = SessionExpiredError
            self.touched.add(name)

    @rule()
    def restart(self) -> None:
        """Stop the server and start another, which opens a lasting store again."""
        if self.is_lasting:
            self.run(self.store.close())
            self.store = self.open_store()
        self.serve()

    @precondition(lambda self: self.plain)
    @rule(number=st.integers(0), text=texts, draws=all_draws)
    def refuse(self, number: int, text: str, draws: Draws) -> None:
        """What is wrong is refused and leaves no trace; looking leaves none either."""
        name, plain = self.choose(number)
        end, turns, history = plain.point.position, self.server.turns, self.server.history
        sampling = sampling_of(draws)
        for work, refusal in (
            (self.server.generate(asked(name, b"", "€", 5, sampling)), UnknownCharacterError),
            (self.server.generate(asked(name, b"", text, 5, sampling, etag="0")), EtagMismatchError),
            (turns.append(AppendRequest(name, text, etag="0")), EtagMismatchError),
            (history.rewind(name, position=end + 1, etag=""), PositionOutOfRangeError),
            (history.rewind(name, position=0, etag="0"), EtagMismatchError),
            (history.fork(name, position=end + 1, count=1), PositionOutOfRangeError),
            (self.server.sessions.transcript(name, 0, end + 1), PositionOutOfRangeError),
            (self.server.resume(name, uuid.uuid4().bytes), TurnNotFoundError),
        ):
            with pytest.raises(refusal):
                self.run(work)
        self.run(turns.score(ScoreRequest(Target(session=name), text)))
        self.run(turns.cancel(name))

    # What must hold

    @invariant()
    def all_is_as_it_should(self) -> None:
        """Sessions that a rule has touched are what the plain model says, and so is the list of all."""
        while self.touched:
            name = self.touched.pop()
            if name in self.gone:
                with pytest.raises(self.gone[name]):
                    self.run(self.server.sessions.get(name))
            else:
                self.run(self.check(name, self.plain[name]))

    async def check(self, name: str, plain: Plain) -> None:
        """Look at a session, all of it and a part."""
        info = await self.server.sessions.get(name)
        end = plain.point.position
        assert (info.position, info.turn_count, info.state_digest) == (end, len(plain.turns), plain.point.digest())
        transcript = await self.server.sessions.transcript(name, 0, None)
        assert transcript.text == plain.point.text()
        bounds = [(turn.start, turn.prompt_end, turn.end) for turn in transcript.turns]
        assert bounds == [(turn.start, turn.prompt_end, turn.end) for turn in plain.turns]
        part = await self.server.sessions.transcript(name, end // 3, end // 2)
        assert part.text == transcript.text[end // 3 : end // 2]
        assert all(
            [turn.difference_at is None and turn.is_state_equal async for turn in self.server.history.replay(name)]
        )


def sampling_of(draws: Draws) -> SamplingRequest:
    """Return the parameters as a request has them."""
    return SamplingRequest(**{key: value for key, value in vars(draws).items() if value != ""})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[tuple[asyncio.Runner, House, Oracle]]:
    """A loop with an engine in it, and the model outside."""
    path = tiny_model(tmp_path_factory.mktemp("models") / "tiny.onnx", "gru", 1, 16, seed=4)
    with asyncio.Runner() as runner:
        house = House([path])
        runner.run(house.__aenter__())
        yield runner, house, Oracle(path)
        runner.run(house.__aexit__(None, None, None))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_session_is_what_the_plain_model_says(world, tmp_path, kind, monkeypatch):
    """Whatever is done in whatever order, text, turns, state and refusals are those of the plain model."""
    monkeypatch.setattr("elman_server.sessions.transitions.NUM_RECENT", 2)  # others are found as older ones
    numbers = count()

    class Here(Machine):
        runner, house, oracle = world
        is_lasting = kind == "sqlite"
        path = tmp_path

        @initialize()
        def begin(self) -> None:
            type(self).path = tmp_path / f"{next(numbers)}.db"
            super().begin()

        def open_store(self) -> Store:
            return SqliteStore(self.path, 1000, self.clock) if self.is_lasting else MemoryStore(1000, 2**30, self.clock)

    run_state_machine_as_test(Here, settings=settings(max_examples=20, stateful_step_count=25))
