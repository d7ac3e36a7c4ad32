"""The scheduler as plain data: who is admitted, who reads, who holds which row."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from elman_server.domain.state import SessionState
from elman_server.engine.core.scheduler import (
    CHUNK_CHARS,
    MAX_CHUNK_POSITIONS,
    MAX_READ_IN_BATCH,
    MAX_READERS,
    QUANTUM_CHARS,
    Phase,
    Scheduler,
    Stream,
)
from elman_server.engine.job import Job

START = SessionState((b"\0\0\0\0",))


def stream_of(identity: int, prompt_chars: int, *, max_chars: int = 10, window: int = 1024) -> Stream:
    """Return a stream with a prompt of that length."""
    return Stream.of(identity, Job(START, 0, [1] * prompt_chars, max_chars=max_chars, window=window))


def ids(streams: list[Stream]) -> list[int]:
    """Return the ids of streams."""
    return [stream.id for stream in streams]


def read(scheduler: Scheduler) -> tuple[list[Stream], int]:
    """Read a chunk as the worker does."""
    streams, size = scheduler.next_chunk()
    for stream in streams:
        for _ in range(size):
            stream.unread.popleft()
    return streams, size


def test_a_stream_reads_the_pending_character_first():
    """A session's last character is read before the prompt, and a new state has none."""
    fresh = Stream.of(0, Job(START, 0, [5, 6]))
    resumed = Stream.of(1, Job(SessionState(START.tensors, 4), 3, [5, 6], recent=[2, 3, 4]))
    assert (list(fresh.unread), list(resumed.unread)) == ([5, 6], [4, 5, 6])
    assert resumed.recent == [2, 3, 4, 5, 6]


def test_places_go_to_the_first_who_waits():
    """Streams are admitted in the order in which they came, as far as there are places."""
    scheduler = Scheduler(2)
    for number, size in enumerate((1, MAX_READ_IN_BATCH + 1, 1)):
        scheduler.add(stream_of(number, size))
    ready = scheduler.admit()
    assert (ids(ready), ids(list(scheduler.prefilling))) == ([0], [1])
    scheduler.join(ready[0])
    assert scheduler.admit() == []
    scheduler.leave(ready[0])
    scheduler.end(ready[0])
    assert ids(scheduler.admit()) == [2]


def owned(identity: int, owner: str) -> Stream:
    """Return a stream of an owner that can decode at once."""
    return Stream.of(identity, Job(START, 0, [1], max_chars=1000, owner=owner))


def admitted(scheduler: Scheduler) -> list[str]:
    """Give rows to all that are admitted; return their owners."""
    ready = scheduler.admit()
    for stream in ready:
        scheduler.join(stream)
        stream.unread.clear()
    return [stream.job.owner for stream in ready]


def made_room(scheduler: Scheduler) -> list[str]:
    """Let streams make room for those of other owners; return whose they are."""
    due = scheduler.due_to_yield()
    for stream in due:
        scheduler.leave(stream)
        scheduler.pause(stream)
    return [stream.job.owner for stream in due]


def test_an_owner_with_less_than_its_share_gets_rows_at_once():
    """A hundred streams of one owner give way to the four of another, no further, and not before they have read."""
    scheduler = Scheduler(8)
    for number in range(100):
        scheduler.add(owned(number, "many"))
    assert (admitted(scheduler), made_room(scheduler)) == (["many"] * 8, [])
    for number in range(100, 106):
        scheduler.add(owned(number, "few"))
    scheduler.decoding[0].unread.append(1)
    assert made_room(scheduler) == ["many"] * 4
    assert scheduler.decoding[0].unread
    assert (admitted(scheduler), made_room(scheduler)) == (["few"] * 4, [])
    scheduler.leave(scheduler.decoding[-1])
    scheduler.add(owned(106, "third"))
    assert (made_room(scheduler), admitted(scheduler)) == ([], ["third"])
    scheduler.add(owned(107, "third"))
    assert (made_room(scheduler), admitted(scheduler)) == (["many"], ["third"])


def test_owners_share_rows_whatever_they_ask_for():
    """Of rows that go round, each owner gets its part, whether ten or a thousand of its streams wait."""
    scheduler = Scheduler(9)
    sizes = {"a": 3, "b": 30, "c": 1000}
    number = 0
    for owner, size in sizes.items():
        for _ in range(size):
            scheduler.add(owned(number, owner))
            number += 1
    steps = dict.fromkeys(sizes, 0)
    for _ in range(100):
        made_room(scheduler)
        admitted(scheduler)
        for stream in scheduler.decoding:
            stream.num_sampled += QUANTUM_CHARS
            steps[stream.job.owner] += 1
        for stream in scheduler.due_to_share():
            scheduler.leave(stream)
            scheduler.pause(stream)
    assert steps == {"a": 300, "b": 300, "c": 300}


class Counted(Stream):
    """A stream that counts how often one is compared with another."""

    num_compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.num_compared += 1
        return self is other

    __hash__ = object.__hash__


def test_a_stream_that_waits_leaves_in_one_step():
    """The end of a stream compares it with no other one, waiting or reading: cancelling n streams costs n steps."""
    scheduler = Scheduler(50)
    streams = [Counted.of(number, Job(START, 0, [1] * 5, max_chars=1)) for number in range(100)]
    for stream in streams:
        scheduler.add(stream)
    scheduler.admit()
    Counted.num_compared = 0
    for stream in reversed(streams):
        scheduler.end(stream)
    assert scheduler.is_idle
    assert Counted.num_compared == 0


def test_a_job_that_only_reads_never_draws():
    """Without characters to sample even a text of one character is read, and takes a place until it ends."""
    scheduler = Scheduler(1)
    scheduler.add(stream_of(0, 1, max_chars=0))
    assert scheduler.admit() == []
    streams, size = read(scheduler)
    assert (ids(streams), size) == ([0], 0)
    scheduler.end(streams[0])
    assert scheduler.is_idle


def test_long_prompts_take_turns():
    """No chunk is larger than its bounds, and the stream that was read goes to the end of the queue."""
    scheduler = Scheduler(16)
    sizes = [1000, 500, 1000, 700, MAX_READ_IN_BATCH + 1]
    for number, size in enumerate(sizes):
        scheduler.add(stream_of(number, size))
    scheduler.admit()
    order = []
    while any(len(stream.unread) > 1 for stream in scheduler.prefilling):
        streams, size = read(scheduler)
        order.append(ids(streams))
        assert size <= MAX_CHUNK_POSITIONS
        assert len(streams) <= MAX_READERS
        assert len(streams) == 1 or len(streams) * size <= CHUNK_CHARS
        for stream in streams:
            if len(stream.unread) == 1:
                scheduler.join(stream)
    assert order[:5] == [[0, 1], [1, 2], [2, 3], [3, 0], [4, 0, 1, 2, 3]]  # the first decides for those it reads with
    assert sorted(ids(scheduler.decoding)) == [0, 1, 2, 3, 4]


def test_every_reader_is_the_first_in_its_turn():
    """A long prompt among ever new short ones is read to its end."""
    scheduler = Scheduler(64)
    scheduler.add(stream_of(0, 40))
    for number in range(1, 200):
        scheduler.add(stream_of(number, 2))
        scheduler.admit()
        for stream in read(scheduler)[0]:
            if len(stream.unread) == 1:
                if stream.id == 0:
                    return
                scheduler.end(stream)
    raise AssertionError("the long prompt was never read")


def test_a_paused_stream_comes_back_before_new_ones():
    """A stream whose reader was behind continues as soon as it may, before those that wait."""
    scheduler = Scheduler(1)
    slow, new = stream_of(0, 1, window=5), stream_of(1, 1)
    scheduler.add(slow)
    (ready,) = scheduler.admit()
    scheduler.join(ready)
    scheduler.add(new)
    slow.num_sampled = 5
    assert slow.num_left == 0
    scheduler.leave(slow)
    scheduler.pause(slow)
    assert ids(scheduler.admit()) == [1]
    scheduler.join(new)
    scheduler.add(stream_of(2, 1))
    scheduler.allow(slow, 3)
    assert (slow.phase, slow.num_left) == (Phase.WAITING, 3)
    scheduler.leave(new)
    scheduler.end(new)
    assert ids(scheduler.admit()) == [0]


def test_rows_are_shared_only_when_somebody_waits():
    """A stream past its quantum continues while none waits; else as many as wait make room, the longest over first."""
    scheduler = Scheduler(3)
    for number in range(3):
        scheduler.add(stream_of(number, 1))
    for stream in scheduler.admit():
        scheduler.join(stream)
    for stream, num_sampled in zip(
        scheduler.decoding, (QUANTUM_CHARS, QUANTUM_CHARS - 1, QUANTUM_CHARS + 5), strict=True
    ):
        stream.num_sampled = num_sampled
    assert scheduler.due_to_share() == []
    scheduler.add(stream_of(3, 1))
    assert ids(scheduler.due_to_share()) == [2]
    scheduler.add(stream_of(4, 1))
    scheduler.add(stream_of(5, 1))
    assert ids(scheduler.due_to_share()) == [2, 0]


class Life(RuleBasedStateMachine):
    """Streams come, read, sample, pause and leave in any order."""

    streams = Bundle("streams")
    CAPACITY = 5

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(self.CAPACITY)
        self.rows: list[Stream | None] = [None] * self.CAPACITY  # what an engine's arrays would hold
        self.alive: list[Stream] = []

    def join(self, stream: Stream) -> None:
        """Join as the worker does."""
        self.rows[self.scheduler.join(stream)] = stream

    def leave(self, stream: Stream) -> None:
        """Leave as the worker does."""
        target = stream.row
        source = self.scheduler.leave(stream)
        self.rows[target] = self.rows[source]
        self.rows[source] = None

    @rule(target=streams, size=st.integers(1, 200), max_chars=st.sampled_from([0, 1, 20]), owner=st.sampled_from("abc"))
    def add(self, size: int, max_chars: int, owner: str) -> Stream:
        """Open a stream."""
        stream = Stream.of(len(self.alive), Job(START, 0, [1] * size, max_chars=max_chars, owner=owner))
        self.alive.append(stream)
        self.scheduler.add(stream)
        return stream

    @rule()
    def step(self) -> None:
        """Admit, and read one chunk."""
        for stream in self.scheduler.admit():
            self.join(stream)
        streams, size = read(self.scheduler)
        assert len(streams) * size <= max(CHUNK_CHARS, MAX_CHUNK_POSITIONS)
        for stream in streams:
            if len(stream.unread) == 1 and stream.job.max_chars:
                self.join(stream)

    @rule()
    def make_room(self) -> None:
        """Those with more than their share give rows to those with less."""
        for stream in self.scheduler.due_to_yield():
            assert not stream.unread
            self.leave(stream)
            self.scheduler.pause(stream)

    @rule(stream=streams)
    def pause(self, stream: Stream) -> None:
        """A reader is behind."""
        if stream.phase is Phase.DECODE:
            self.leave(stream)
            self.scheduler.pause(stream)

    @rule(stream=streams, num_chars=st.integers(1, 9))
    def allow(self, stream: Stream, num_chars: int) -> None:
        """A reader has followed."""
        if stream.phase is not Phase.OVER:
            self.scheduler.allow(stream, num_chars)

    @rule(stream=consumes(streams))
    def end(self, stream: Stream) -> None:
        """A stream is closed."""
        if stream.phase is Phase.DECODE:
            self.leave(stream)
        self.scheduler.end(stream)
        assert self.scheduler.get(stream.id) is None

    @invariant()
    def the_batch_is_a_prefix(self) -> None:
        """The decoding streams hold the first rows, each the one that it believes to hold."""
        decoding = self.scheduler.decoding
        assert [stream.row for stream in decoding] == list(range(len(decoding)))
        assert self.rows == [*decoding, *[None] * (self.CAPACITY - len(decoding))]

    @invariant()
    def every_stream_is_where_its_phase_says(self) -> None:
        """A stream waits, reads, samples, or does none of the three."""
        for stream in self.alive:
            assert (stream in self.scheduler.decoding) == (stream.phase is Phase.DECODE)
            assert (stream in self.scheduler.prefilling) == (stream.phase is Phase.PREFILL)
            assert (stream in self.scheduler._waiting) == (stream.phase is Phase.WAITING)

    @invariant()
    def owners_are_counted(self) -> None:
        """What each owner has is what its streams are."""
        placed = [stream for stream in self.alive if stream.phase in {Phase.DECODE, Phase.PREFILL}]
        waiting = [stream for stream in self.alive if stream.phase is Phase.WAITING]
        assert self.scheduler._placed == Counter(stream.job.owner for stream in placed)
        assert self.scheduler._active == Counter(stream.job.owner for stream in placed + waiting)

    @invariant()
    def places_are_not_given_twice(self) -> None:
        """No more streams have a place than there are."""
        assert len(self.scheduler.decoding) + len(self.scheduler.prefilling) <= self.CAPACITY


Life.TestCase.settings = settings(max_examples=50, stateful_step_count=40)
TestLife = Life.TestCase
