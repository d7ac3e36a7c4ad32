"""The scheduler: which streams prefill, decode or wait. Plain data, no I/O, no clock.

Streams that decode hold the rows 0 … n-1 of the batch: joining takes the next row, leaving moves the last row into
the hole, so that the batch is always a prefix of the arrays. Streams that read a prompt take turns, a bounded
chunk at a time, so that a long prompt stalls nobody. Whatever ends a stream costs the same however many wait.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

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
        # Queues, as dictionaries: a stream in the middle leaves in one step.
        self._waiting: OrderedDict[Stream, None] = OrderedDict()
        self._fitting = MIN_CHUNK_POSITIONS  # of the next chunk beside rows
        self.prefilling: OrderedDict[Stream, None] = OrderedDict()
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
        self._waiting[stream] = None

    def get(self, identity: int) -> Stream | None:
        """Return a stream that is not over."""
        return self._streams.get(identity)

    def admit(self) -> list[Stream]:
        """Give free places to streams that wait, the first first; return those that can decode at once."""
        ready: list[Stream] = []
        while self._waiting and len(self.prefilling) + len(self.decoding) + len(ready) < self._capacity:
            stream, _ = self._waiting.popitem(last=False)
            if stream.arrived:
                self.newcomers.append(stream.arrived)
                stream.arrived = 0.0
            if stream.reads_in_batch:
                ready.append(stream)
            else:
                stream.phase = Phase.PREFILL
                self.prefilling[stream] = None
        return ready

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
        self.prefilling.move_to_end(first)
        return together, size

    def time_chunk(self, size: int, seconds: float) -> None:
        """Derive from a chunk's time how large the next may be."""
        self._fitting = min(max(int(size * CHUNK_SECONDS / seconds), MIN_CHUNK_POSITIONS), MAX_CHUNK_POSITIONS)

    def join(self, stream: Stream) -> int:
        """Give a stream the next row of the batch; return it."""
        if stream.phase is Phase.PREFILL:
            del self.prefilling[stream]
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
        return moved

    def due_to_share(self) -> list[Stream]:
        """Return streams past their quantum, one for each that waits for a row; the longest past it first."""
        if not self._waiting:
            return []
        over = [stream for stream in self.decoding if stream.num_sampled >= stream.quantum_end]
        over.sort(key=lambda stream: stream.quantum_end - stream.num_sampled)
        return over[: len(self._waiting)]

    def pause(self, stream: Stream) -> None:
        """Let a stream that left its row wait for its reader, or for a row behind the others."""
        stream.phase = Phase.PAUSED
        if stream.num_sampled < stream.allowed:
            stream.phase = Phase.WAITING
            self._waiting[stream] = None

    def allow(self, stream: Stream, num_chars: int) -> None:
        """Let a stream sample more; a paused one waits for a place again, before new ones."""
        stream.allowed += num_chars
        if stream.phase is Phase.PAUSED:
            stream.phase = Phase.WAITING
            self._waiting[stream] = None
            self._waiting.move_to_end(stream, last=False)

    def end(self, stream: Stream) -> None:
        """Remove a stream that holds no row."""
        if stream.phase is Phase.WAITING:
            del self._waiting[stream]
        elif stream.phase is Phase.PREFILL:
            del self.prefilling[stream]
        stream.phase = Phase.OVER
        del self._streams[stream.id]
