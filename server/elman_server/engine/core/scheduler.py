"""The scheduler: which streams prefill, decode or wait. Plain data, no I/O, no clock.

Streams that decode hold the rows 0 … n-1 of the batch: joining takes the next row, leaving moves the last row into
the hole, so that the batch is always a prefix of the arrays. Streams that read a prompt take turns, a bounded
chunk at a time, so that a long prompt stalls nobody. Whatever ends a stream costs the same however many wait.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from elman_server.engine.fairness import FairQueue, count_down
from elman_server.engine.job import Job, StopMatcher

if TYPE_CHECKING:
    from elman_server.domain.state import SessionState
    from elman_server.engine.core.effective import EffectiveTrace

MAX_READ_IN_BATCH: Final = 4  # characters of a short prompt
MIN_CHUNK_POSITIONS: Final = 8  # of each stream that prefills
MAX_CHUNK_POSITIONS: Final = 64
CHUNK_SECONDS: Final = 0.008  # about the time of a chunk beside rows, which wait for it
CHUNK_CHARS: Final = 128  # of all streams that prefill together
MAX_READERS: Final = 16
QUANTUM_CHARS: Final = 128  # sampled before a row goes to a stream that waits for one


class Phase(enum.Enum):
    """Where a stream is in its life."""

    WAITING = "waiting"  # for a place
    PREFILL = "prefill"  # its prompt, all but the last character
    DECODE = "decode"  # holds a row
    PAUSED = "paused"  # its reader is behind; holds no row
    OVER = "over"


@dataclass(slots=True, eq=False)
class Stream:
    """A job under way.

    Attributes:
        state: the state before `unread`, while the stream holds no row; its pending character is not used.
        unread: characters still to read; the last of them is read by the batch's step, or stays pending. Of a stream
            with a row: those that its next steps read instead of what they sampled.
        num_sampled: how many characters were sampled, up to the last flush.
        allowed: how many may be sampled in all until the reader allows more.
        arrived: seconds of the monotonic clock; 0 once it has had a place.
        quantum_end: how many are sampled in all before the row goes to a stream that waits for one.
        outbox: sampled characters that were not sent, and their details, each packed.
        trace: of what they were sampled from, if that is to be reported.
        recent: the last characters before the next one, as far as the repetition window reaches.
    """

    id: int
    job: Job
    state: SessionState
    unread: deque[int]
    allowed: int
    matcher: StopMatcher | None
    recent: list[int]
    phase: Phase = Phase.WAITING
    row: int = -1
    num_sampled: int = 0
    arrived: float = 0.0
    quantum_end: int = 0
    checkpoint: int = -1  # characters sampled when the last state was sent
    outbox: list[int] = field(default_factory=list)
    details: list[bytes] = field(default_factory=list)
    trace: EffectiveTrace | None = None

    @classmethod
    def of(cls, identity: int, job: Job, arrived: float = 0.0) -> Stream:
        """Return a stream at the beginning of a job."""
        pending = [job.state.pending] if job.position else []
        return cls(
            id=identity,
            job=job,
            state=job.state,
            unread=deque([*pending, *job.prompt]),
            allowed=job.window,
            matcher=StopMatcher(job.stops) if job.stops else None,
            arrived=arrived,
            recent=[*job.recent, *job.prompt][-job.sampling.repetition_window :],
        )

    @property
    def reads_in_batch(self) -> bool:
        """Whether the batch's own steps read what is unread: a run of the prefill graph would cost more."""
        if not self.job.max_chars:
            return False
        is_plain = self.matcher is None and not self.job.detail and self.job.sampling.repetition_penalty == 1
        return len(self.unread) <= (MAX_READ_IN_BATCH if is_plain else 1)

    @property
    def num_left(self) -> int:
        """How many characters may be sampled until the stream ends or pauses."""
        return min(self.job.max_chars, self.allowed) - self.num_sampled


class Scheduler:
    """Admits, chunks, joins and leaves.

    Attributes:
        decoding: the streams that hold a row, by row.
        prefilling: the streams that read a prompt, the next one first.
        newcomers: when those arrived that got their first place since `take_newcomers`.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._streams: dict[int, Stream] = {}
        self._waiting: FairQueue[Stream] = FairQueue()
        self._active: Counter[str] = Counter()  # streams that wait or have a place, by owner
        self._placed: Counter[str] = Counter()  # streams that have a place, by owner
        self._has_arrivals = False  # since fairness was looked at
        self._fitting = MIN_CHUNK_POSITIONS  # of the next chunk beside rows
        self.prefilling: FairQueue[Stream] = FairQueue()
        self.decoding: list[Stream] = []
        self.newcomers: list[float] = []

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self._waiting or self.prefilling or self.decoding)

    @property
    def is_crowded(self) -> bool:
        """Whether streams wait for a place."""
        return bool(self._waiting)

    def add(self, stream: Stream) -> None:
        """Let a stream wait for a place."""
        self._streams[stream.id] = stream
        self._wait(stream)

    def get(self, identity: int) -> Stream | None:
        """Return a stream that is not over."""
        return self._streams.get(identity)

    def admit(self) -> list[Stream]:
        """Give free places to streams that wait; return those that can decode at once.

        Owners with less than their share come first, and take turns, as do the others after them.
        """
        ready: list[Stream] = []
        while self._waiting and len(self.prefilling) + len(self.decoding) + len(ready) < self._capacity:
            stream = self._waiting.pop(self._next_owner())
            self._placed[stream.job.owner] += 1
            if stream.arrived:
                self.newcomers.append(stream.arrived)
                stream.arrived = 0.0
            if stream.reads_in_batch:
                ready.append(stream)
            else:
                stream.phase = Phase.PREFILL
                self.prefilling.add(stream.job.owner, stream)
        return ready

    def due_to_yield(self) -> list[Stream]:
        """Return streams of owners with more than their share, one for each that waits of owners with less."""
        if not self._has_arrivals:
            return []
        self._has_arrivals = False
        share = self._share
        if len(self._active) == 1 or len(self._active) > self._capacity or not self._waiting:
            return []
        num_lacking = sum(min(count, max(0, share - self._placed[owner])) for owner, count in self._waiting.owners())
        num_wanted = num_lacking - (self._capacity - len(self.prefilling) - len(self.decoding))
        excess = {owner: count - share for owner, count in self._placed.items() if count > share}
        decoding = sorted(self.decoding, key=lambda stream: stream.quantum_end - stream.num_sampled)
        due: list[Stream] = []
        for stream in chain(self.prefilling, decoding):
            if len(due) >= num_wanted:
                break
            is_ready = stream.phase is Phase.PREFILL or not stream.unread
            if is_ready and excess.get(stream.job.owner, 0) > 0:
                excess[stream.job.owner] -= 1
                due.append(stream)
        self._has_arrivals = len(due) < num_wanted  # some rows still read their prompt
        return due

    def take_newcomers(self) -> list[float]:
        """Return `newcomers`, and empty it."""
        taken, self.newcomers = self.newcomers, []
        return taken

    def next_chunk(self) -> tuple[list[Stream], int]:
        """Return the streams that read now, and how many characters each: few enough if rows wait for it.

        The first of the queue decides how many and moves to its end; others that have as many left join it and keep
        their places, so that a long prompt among many short ones still gets its long chunks.
        """
        if not self.prefilling:
            return [], 0
        first = next(iter(self.prefilling))
        size = min(len(first.unread) - 1, self._fitting if self.decoding else MAX_CHUNK_POSITIONS)
        most = max(1, min(MAX_READERS, CHUNK_CHARS // max(size, 1)))
        together = list(islice((stream for stream in self.prefilling if len(stream.unread) > size), most))
        self.prefilling.rotate(first.job.owner, first)
        return together, size

    def time_chunk(self, size: int, seconds: float) -> None:
        """Derive from a chunk's time how large the next may be."""
        self._fitting = min(max(int(size * CHUNK_SECONDS / seconds), MIN_CHUNK_POSITIONS), MAX_CHUNK_POSITIONS)

    @property
    def num_others(self) -> float:
        """How many owners that read nothing there are for each that reads: each is due as much time."""
        return (len(self._active) - self.prefilling.num_owners) / max(1, self.prefilling.num_owners)

    def join(self, stream: Stream) -> int:
        """Give a stream the next row of the batch; return it."""
        if stream.phase is Phase.PREFILL:
            self.prefilling.remove(stream.job.owner, stream)
        stream.phase, stream.row = Phase.DECODE, len(self.decoding)
        stream.quantum_end = stream.num_sampled + QUANTUM_CHARS
        self.decoding.append(stream)
        return stream.row

    def leave(self, stream: Stream) -> int:
        """Take a stream's row away; return the row whose content has to move there, or the same row."""
        row, last = stream.row, self.decoding.pop()
        moved = last.row
        if last is not stream:
            self.decoding[row] = last
            last.row = row
        stream.row = -1
        self._leave_place(stream)
        return moved

    def set_aside(self, stream: Stream) -> None:
        """Let a stream that reads its prompt wait for a place again, before new ones."""
        self.prefilling.remove(stream.job.owner, stream)
        self._leave_place(stream)
        stream.phase = Phase.WAITING
        self._wait(stream, is_first=True)

    def due_to_share(self) -> list[Stream]:
        """Return streams past their quantum, one for each that waits for a row; the longest past it first.

        An owner with no more than the share of each gives rows to its own streams alone.
        """
        if not self._waiting:
            return []
        share = self._share
        over = [
            stream
            for stream in self.decoding
            if stream.num_sampled >= stream.quantum_end
            and (self._waiting.has(stream.job.owner) or self._placed[stream.job.owner] > share)
        ]
        over.sort(key=lambda stream: stream.quantum_end - stream.num_sampled)
        return over[: len(self._waiting)]

    def pause(self, stream: Stream) -> None:
        """Let a stream that left its row wait for its reader, or for a row behind the others."""
        stream.phase = Phase.PAUSED
        if stream.num_sampled < stream.allowed:
            stream.phase = Phase.WAITING
            self._wait(stream)

    def allow(self, stream: Stream, num_chars: int) -> None:
        """Let a stream sample more; a paused one waits for a place again, before new ones."""
        stream.allowed += num_chars
        if stream.phase is Phase.PAUSED:
            stream.phase = Phase.WAITING
            self._wait(stream, is_first=True)

    def end(self, stream: Stream) -> None:
        """Remove a stream that holds no row."""
        if stream.phase is Phase.WAITING:
            self._waiting.remove(stream.job.owner, stream)
            count_down(self._active, stream.job.owner)
        elif stream.phase is Phase.PREFILL:
            self.prefilling.remove(stream.job.owner, stream)
            self._leave_place(stream)
        stream.phase = Phase.OVER
        del self._streams[stream.id]

    @property
    def _share(self) -> int:
        """How many places each owner has before others go without."""
        return max(1, self._capacity // max(1, len(self._active)))

    def _next_owner(self) -> str:
        """Return whose stream gets the next place."""
        share, first = self._share, None
        for owner, _ in self._waiting.owners():
            if self._placed[owner] < share:
                return owner
            first = owner if first is None else first
        assert first is not None
        return first

    def _wait(self, stream: Stream, *, is_first: bool = False) -> None:
        self._waiting.add(stream.job.owner, stream, is_first=is_first)
        self._active[stream.job.owner] += 1
        self._has_arrivals = True

    def _leave_place(self, stream: Stream) -> None:
        count_down(self._active, stream.job.owner)
        count_down(self._placed, stream.job.owner)
