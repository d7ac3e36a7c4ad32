"""Counters: what the process has counted since its start, in plain numbers.

A turn adds to them in nanoseconds; `collector` makes Prometheus' metrics of them when somebody asks. Like the log they
belong to the process, so that no constructor passes them on.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elman_server.process.observe.call import Call

# Of characters: a step of the smallest model takes tens of microseconds, and a caller waits seconds for a full server.
SECONDS: Final = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


@dataclass(slots=True)
class Histogram:
    """How often a value fell between two bounds.

    Attributes:
        bounds: ascending; a value belongs to the first that is not below it.
        counts: one more than bounds: the last is of what is above all.
        total: the sum of the values.
    """

    bounds: Sequence[float] = SECONDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float, weight: int = 1) -> None:
        """Count a value `weight` times."""
        self.counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight

    def merge(self, counts: Sequence[int], total: float) -> None:
        """Add what another process has counted with the same bounds."""
        self.counts = [mine + others for mine, others in zip(self.counts, counts, strict=True)]
        self.total += total


def _sizes() -> Histogram:
    return Histogram(SIZES)


@dataclass(slots=True)
class ModelCounters:
    """What is counted of each model.

    Attributes:
        first_character: seconds from a call's arrival to its first text.
        between_characters: seconds between two texts, shared among the characters of the second.
        text_size: characters of one message.
        num_read: characters of prompts and texts.
        turns: by how they ended.
        step: seconds of one step of the engine.
        batch: rows of one step.
        queue: seconds that a job waited for a place in the engine.
        num_restarts: of its engines.
        engine_cpu: seconds of the processor that its engines have used.
    """

    first_character: Histogram = field(default_factory=Histogram)
    between_characters: Histogram = field(default_factory=Histogram)
    text_size: Histogram = field(default_factory=_sizes)
    num_read: int = 0
    turns: Counter[str] = field(default_factory=Counter)
    step: Histogram = field(default_factory=Histogram)
    batch: Histogram = field(default_factory=_sizes)
    queue: Histogram = field(default_factory=Histogram)
    num_restarts: int = 0
    engine_cpu: float = 0.0

    def delivered(self, num_chars: int, call: Call) -> None:
        """Count characters that a turn of `call` gives to gRPC now, in one message."""
        now, last = time.monotonic(), call.last_text
        # `add`, written out: this is done for every message.
        if last:
            histogram, seconds = self.between_characters, now - last
            histogram.counts[bisect_left(SECONDS, seconds / num_chars)] += num_chars
            histogram.total += seconds
        else:
            self.first_character.add(now - call.turn_begin)
        histogram = self.text_size
        histogram.counts[bisect_left(SIZES, num_chars)] += 1
        histogram.total += num_chars
        call.last_text = now
        call.num_sampled += num_chars

    @property
    def num_sampled(self) -> int:
        """How many characters were sampled and delivered."""
        return int(self.text_size.total)


@dataclass(slots=True)
class Counters:
    """What one process has counted.

    Attributes:
        calls: by method and code.
        call_seconds: by method.
        refusals: calls that failed, by code and reason.
        models: by name.
        sessions_ended: by how: `expired`, `evicted` or `deleted`.
        sessions_created: by model.
        resumes: turns that were delivered again, by whether they `continued` or were `complete`.
        store: seconds of the store's operations.
        num_streams: that are open now.
        num_sessions: in the store; None: not known yet.
        loop_lag: by how many seconds the event loop was late.
    """

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    call_seconds: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    models: defaultdict[str, ModelCounters] = field(default_factory=lambda: defaultdict(ModelCounters))
    sessions_ended: Counter[str] = field(default_factory=Counter)
    sessions_created: Counter[str] = field(default_factory=Counter)
    resumes: Counter[str] = field(default_factory=Counter)
    store: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    num_streams: int = 0
    num_sessions: int | None = None
    loop_lag: Histogram = field(default_factory=Histogram)

    def ended(self, call: Call) -> None:
        """Count a call that is over, and how; a turn that its caller left did not say so itself."""
        self.calls[call.method, call.code] += 1
        self.call_seconds[call.method].add(time.monotonic() - call.begin)
        if call.reason:
            self.refusals[call.code, call.reason] += 1
        if call.code in {"CANCELLED", "DEADLINE_EXCEEDED"} and call.turn_begin and not call.finish:
            self.turn_ended(call, call.code.lower())

    def turn_ended(self, call: Call, finish: str) -> None:
        """Count a turn that is over."""
        call.finish = finish
        self.models[call.model].turns[finish] += 1


COUNTERS: Final = Counters()
