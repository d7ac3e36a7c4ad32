"""The engine loop: runs steps while there is anything to compute.

Continuous batching is `EngineLoop.step`: streams join and leave between any two steps; each step reads one character of
every row, from the prompt or sampled before, and samples the next.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from elman_server.domain.events import FinishReason
from elman_server.domain.sampling import log_softmax
from elman_server.domain.state import SessionState
from elman_server.engine.core.batch import FLUSH_STEPS, Batch
from elman_server.engine.core.effective import EffectiveTrace
from elman_server.engine.core.inspection.inspector import Inspector
from elman_server.engine.core.scheduler import QUANTUM_CHARS, Phase, Scheduler, Stream
from elman_server.engine.job import IdDetail, Output, pack
from elman_server.engine.protocol import Allow, CloseJob, OpenJob, Outputs, Ping, Pong
from elman_server.engine.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elman_server.engine.core.model_runner import ModelRunner
    from elman_server.engine.job import Job
    from elman_server.engine.protocol import EngineLink, ToEngine

CHECKPOINT_CHARS: Final = 64  # a turn that is cut off re-reads at most that many characters and one flush,
CHECKPOINT_PIECES: Final = 4  # or that many flushes, where the model is so fast that these are more
POLL_SECONDS: Final = 0.0005  # the longest that a message waits while there is something to compute
UNHURRIED_STREAMS: Final = 32  # the characters of more streams are joined for longer
MOST_INTERVALS: Final = 4  # that characters are joined by the clock, however little CPU time the engine gets
LAST_INTERVALS: Final = 3  # that the end of a turn is waited for, to go out in one piece


class EngineLoop:
    """Runs the jobs of one model.

    Args:
        flush_seconds: how long characters are joined, in CPU time, while there are few streams.
        specials: ids that stand for no text: they have no part in probabilities. Jobs ban them.
    """

    def __init__(
        self,
        model: ModelRunner,
        output_size: int,
        link: EngineLink,
        flush_seconds: float,
        specials: Sequence[int] = (),
    ) -> None:
        self._model = model
        self._specials = list(specials)
        self._link = link
        self._flush_seconds = flush_seconds
        self._scheduler = Scheduler(model.capacity)
        self._inspector = Inspector(model)
        self._rows = Batch(model.capacity, output_size)
        self._attentive: set[Stream] = set()  # need a look after every step: stop strings, details
        self._reading: list[Stream] = []  # rows whose next steps read their prompt
        self._outputs: list[Output] = []
        self._last_flush = self._next_flush = self._latest_flush = 0.0
        self._tally = Tally(model.capacity)

    def run(self) -> None:
        """Run steps until the server is down."""
        np.seterr(all="ignore")  # what is not finite is found by looking
        polled = -math.inf
        try:
            while True:
                is_idle, now = self._scheduler.is_idle, time.monotonic()
                if is_idle or now >= polled + POLL_SECONDS:
                    self._tally.time_steps(now - polled)
                    for message in self._link.receive(wait=is_idle and self._inspector.is_idle):
                        self._handle(message)
                    polled = time.monotonic()
                if self._inspector.is_idle:
                    self.step()
                else:
                    begin = time.process_time()
                    self.step()
                    self._inspect(time.process_time() - begin)
        except (EOFError, ConnectionError):
            return

    def step(self) -> None:
        """Schedule, run, sample, deliver."""
        for stream in self._scheduler.due_to_yield():
            self._yield(stream)
        admitted = self._scheduler.admit()
        if self._scheduler.newcomers:
            self._tally.time_waits(self._scheduler.take_newcomers())
        joined = [self._join(stream) for stream in [*admitted, *self._read_chunk()]]
        if size := len(self._scheduler.decoding):
            self._tally.step(size)
            logits = self._model.step(size)  # [B, V] float32
            broken = self._mend(logits)
            sampled = self._rows.sample(logits)  # [B] int64
            self._model.chars[:size] = sampled
            joined = [stream for stream in joined if not stream.unread] + self._read_on()
            stopped = self._observe(logits, sampled)
            self._deliver(broken, stopped, joined)
        if self._outputs:
            self._link.send(Outputs(self._outputs))
            self._outputs = []
            os.sched_yield()  # on a core that both share, the front would get them a step later

    def _inspect(self, seconds: float) -> None:
        """Run a piece of an inspection: beside turns, which have just taken some seconds, only now and then."""
        inspector = self._inspector
        self._outputs += inspector.run_alone() if self._scheduler.is_idle else inspector.run_beside(seconds)

    # Messages

    def _handle(self, message: ToEngine) -> None:
        if isinstance(message, OpenJob):
            if message.job.inspect is None:
                self._scheduler.add(_stream_of(message.stream, message.job))
            else:
                self._outputs += self._inspector.open(message.stream, message.job)
        elif isinstance(message, Allow):
            for identity, num_chars in message.num_chars.items():
                self._allow(identity, num_chars)
                self._inspector.allow(identity, num_chars)
        elif isinstance(message, Ping):
            self._link.send(Pong(self._tally.report()))
        else:
            assert isinstance(message, CloseJob)
            self._inspector.close(message.stream)
            if stream := self._scheduler.get(message.stream):  # or it ended while the message was under way
                self._end(stream)

    def _allow(self, identity: int, num_chars: int) -> None:
        stream = self._scheduler.get(identity)
        if stream is None:  # it ended while the message was under way
            return
        self._scheduler.allow(stream, num_chars)
        if stream.phase is Phase.DECODE:
            self._rows.allow(stream.row, stream.num_left - self._rows.num_unsent(stream.row))

    # Reading

    def _read_chunk(self) -> list[Stream]:
        """Read one chunk of some prompts; return the streams that can decode after it."""
        if not self._scheduler.prefilling:
            return []
        begin = time.monotonic()
        streams, size = self._scheduler.next_chunk()
        if size:
            logits, states = self._read(streams, size)
            self._scheduler.time_chunk(size, time.monotonic() - begin)
            for index, stream in enumerate(streams):
                self._take_in(stream, logits[:, index], [state[:, index] for state in states])
        done = [stream for stream in streams if stream.phase is Phase.PREFILL and len(stream.unread) == 1]
        for stream in done:
            if not stream.job.max_chars:
                self._end_reading(stream)
        return [stream for stream in done if stream.phase is Phase.PREFILL]

    def _read(self, streams: Sequence[Stream], size: int) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Read `size` characters of streams; return logits [T, B, V] and states [T, B, ...], or only the last ones."""
        chars = np.ascontiguousarray(np.array([list(islice(stream.unread, size)) for stream in streams], np.int64).T)
        states = self._model.rows([stream.state for stream in streams])
        if any(stream.job.read_out for stream in streams):  # a probe reads every state
            return self._model.walk(chars, states)
        logits, states = self._model.read(chars, states)
        return logits, [state[None] for state in states]

    def _take_in(self, stream: Stream, logits: NDArray[np.float32], states: Sequence[NDArray[np.float32]]) -> None:
        """Store what a chunk returned: logits [T, V] and, of each state, rows of which the last is kept."""
        job = stream.job
        if not (np.isfinite(logits).all() and (not job.read_out or all(np.isfinite(state).all() for state in states))):
            self._outputs.append(Output(stream.id, not_finite=True))
            self._scheduler.end(stream)
            return
        if job.detail and not job.max_chars:
            following = list(islice(stream.unread, 1, len(logits) + 1))  # none after the last
            details = self._details(logits[: len(following)], following, stream)
            self._outputs.append(Output(stream.id, details=[details]))
        if job.read_out is not None:
            labels = self._model.probes[job.read_out].read(states) if job.read_out else log_softmax(logits)
            self._outputs.append(Output(stream.id, labels=[pack(labels.tolist())]))
        for _ in range(len(logits)):
            stream.unread.popleft()
        stream.state = SessionState(tuple(state[-1].tobytes() for state in states))

    def _end_reading(self, stream: Stream) -> None:
        """End a job that only reads: its last character stays pending, and only a read-out reads it."""
        state = SessionState(stream.state.tensors, stream.unread[0])
        if stream.job.read_out is not None:
            logits, states = self._read([stream], 1)
            self._take_in(stream, logits[:, 0], [state[:, 0] for state in states])
        if stream.phase is Phase.PREFILL:
            self._outputs.append(Output(stream.id, state=state, finished=FinishReason.MAX_CHARS))
            self._scheduler.end(stream)

    # Batch

    def _join(self, stream: Stream) -> Stream:
        row = self._scheduler.join(stream)
        self._model.load_row(row, stream.state.tensors)
        self._model.chars[row] = stream.unread.popleft()
        self._rows.load(row, stream)
        if stream.unread:
            self._reading.append(stream)
        if stream.matcher or stream.job.detail:
            self._attentive.add(stream)
        return stream

    def _read_on(self) -> list[Stream]:
        """Let rows that still read their prompt read on; return those that have sampled their first character."""
        if not self._reading:
            return []
        reading, self._reading = [stream for stream in self._reading if stream.phase is Phase.DECODE], []
        begun = []
        for stream in reading:
            if stream.unread:
                self._model.chars[stream.row] = stream.unread.popleft()
                self._reading.append(stream)
            else:
                begun.append(stream)
        return begun

    def _leave(self, stream: Stream) -> None:
        """Free a stream's row."""
        target = stream.row
        source = self._scheduler.leave(stream)
        if source != target:
            self._model.move_row(source, target)
            self._rows.move(source, target)
        self._attentive.discard(stream)

    def _end(self, stream: Stream) -> None:
        if stream.phase is Phase.DECODE:
            self._leave(stream)
        self._scheduler.end(stream)

    def _pause(self, stream: Stream) -> None:
        """Set a stream aside until its reader allows more, or until others had their quantum."""
        stream.state = self._state_of(stream)
        stream.unread = deque([stream.state.pending])
        stream.recent = self._rows.recent(stream.row)
        self._leave(stream)
        self._scheduler.pause(stream)

    def _yield(self, stream: Stream) -> None:
        """Send what a stream has sampled, and give its row to others."""
        self._collect(stream)
        self._flush(stream)
        self._pause(stream)

    def _state_of(self, stream: Stream) -> SessionState:
        return SessionState(self._model.save_row(stream.row), int(self._model.chars[stream.row]))

    # What was sampled

    def _mend(self, logits: NDArray[np.float32]) -> list[int]:
        """Return the rows whose logits are not finite; these are set to 0 for the sampler."""
        if math.isfinite(np.add.reduce(logits, axis=None)):  # of an overflow, look twice
            return []
        broken: list[int] = np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist()
        logits[broken] = 0
        return broken

    def _observe(self, logits: NDArray[np.float32], sampled: NDArray[np.int64]) -> dict[int, int]:
        """Add details and match stop strings, in the rows that have any; return the completed stop string by row."""
        stopped = {}
        for stream in self._attentive:
            row = stream.row
            character = int(sampled[row])
            if stream.job.detail:
                stream.details.append(self._details(logits[row : row + 1], [character], stream))
            if stream.matcher and (stop := stream.matcher.push(character)) is not None:
                stopped[row] = stop
        return stopped

    def _deliver(self, broken: list[int], stopped: dict[int, int], joined: list[Stream]) -> None:
        """End, pause and flush. The last row first: a row that moves into a hole was handled before."""
        decoding = self._scheduler.decoding
        ended = self._rows.at_end(len(decoding))
        for row in sorted({*broken, *stopped, *ended}, reverse=True) if broken or stopped or ended else ():
            stream = decoding[row]
            if row in broken:
                self._outputs.append(Output(stream.id, not_finite=True))
                self._end(stream)
            elif row in stopped:
                self._finish(stream, stopped[row])
            else:
                self._end_or_pause(stream)
        for stream in joined:  # the first character goes out at once
            if stream.phase is Phase.DECODE:
                self._collect(stream)
                self._flush(stream)
        # Counted in CPU time: by the clock, a busy machine would join fewer characters in each message, and more
        # messages would keep it busier.
        now, wall = time.thread_time(), time.monotonic()
        most = QUANTUM_CHARS if self._scheduler.is_crowded else FLUSH_STEPS
        if now >= self._next_flush or wall >= self._latest_flush or self._rows.num_steps >= most:
            # The cost of messages grows with streams / interval, that of waiting with the interval: least at the root.
            interval = self._flush_seconds * max(1.0, math.sqrt(len(decoding) / UNHURRIED_STREAMS))
            step_seconds = max(1e-6, (now - self._last_flush) / max(1, self._rows.num_steps))
            self._last_flush, self._next_flush = now, now + interval
            self._latest_flush = wall + MOST_INTERVALS * interval
            self._flush_all(int(LAST_INTERVALS * interval / step_seconds))

    def _end_or_pause(self, stream: Stream) -> None:
        """End or pause a stream that has sampled all that it may for now."""
        self._collect(stream)
        if stream.num_sampled == stream.job.max_chars:
            self._finish(stream)
        else:
            self._flush(stream)
            self._pause(stream)

    def _flush_all(self, num_last: int) -> None:
        """Send what every row has sampled; then give rows to streams that wait.

        A turn that ends within `num_last` characters is sent with its end.
        """
        decoding = self._scheduler.decoding
        for stream, sampled in zip(decoding, self._rows.take_all(len(decoding)), strict=True):
            stream.num_sampled += len(sampled)
            stream.outbox += sampled
            if stream.job.max_chars - stream.num_sampled > num_last or len(stream.outbox) > num_last:
                self._flush(stream)
        for stream in self._scheduler.due_to_share():
            self._flush(stream)
            self._pause(stream)

    def _flush(self, stream: Stream) -> None:
        """Send what may be sent; now and then with the state after it."""
        held = stream.matcher.held if stream.matcher else 0
        size = len(stream.outbox) - held
        if size <= 0:
            return
        state = None
        due = stream.checkpoint + max(CHECKPOINT_CHARS, CHECKPOINT_PIECES * size) if stream.checkpoint >= 0 else 0
        if not held and stream.num_sampled >= due:
            state, stream.checkpoint = self._state_of(stream), stream.num_sampled
        self._outputs.append(Output(stream.id, stream.outbox[:size], stream.details[:size], state))
        del stream.outbox[:size], stream.details[:size]

    def _finish(self, stream: Stream, stop: int = -1) -> None:
        """Send the rest and end; a stop string that is not included is not part of the state either."""
        self._collect(stream)
        reason = FinishReason.MAX_CHARS if stop < 0 else FinishReason.STOP_STRING
        is_cut = stop >= 0 and not stream.job.include_stop
        size = len(stream.outbox) - (len(stream.job.stops[stop]) if is_cut else 0)
        state = None if is_cut else self._state_of(stream)
        self._outputs.append(Output(stream.id, stream.outbox[:size], stream.details[:size], state, reason, stop))
        self._end(stream)

    def _collect(self, stream: Stream) -> None:
        taken = self._rows.take(stream.row)
        stream.num_sampled += len(taken)
        stream.outbox += taken

    def _details(self, logits: NDArray[np.float32], characters: Sequence[int], stream: Stream) -> bytes:
        """Return how likely each character was, packed; logits [N, V] for N characters."""
        own = np.ascontiguousarray(logits)
        if self._specials:
            own = own.copy()
            own[:, self._specials] = -np.inf
        log_probabilities, trace = log_softmax(own), stream.trace
        top_n = min(stream.job.detail.top_n, own.shape[1] - len(self._specials))
        details = []
        for row, whole, character in zip(log_probabilities, own, characters, strict=True):
            likeliest = np.argsort(-row, kind="stable")[:top_n]
            effective = trace.next(whole, character, top_n) if trace else None
            details.append(IdDetail(float(row[character]), [(int(at), float(row[at])) for at in likeliest], effective))
        return pack(details)


def _stream_of(identity: int, job: Job) -> Stream:
    stream = Stream.of(identity, job, time.monotonic())
    if job.detail.effective:
        first = 0 if job.position else 1  # nothing was before the first character of a new state
        num_known = len(job.prompt) if job.max_chars else first
        before = [*job.recent, *job.prompt[:num_known]]
        stream.trace = EffectiveTrace(job.sampling, job.position + num_known, before)
    return stream
