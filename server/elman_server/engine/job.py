"""Jobs: what a turn asks of the engine, when it stops, and what it returns; all in ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from elman_server.domain.events import FinishReason
from elman_server.domain.requests import Detail
from elman_server.domain.sampling import Sampling
from elman_server.domain.state import SessionState
from elman_server.engine.inspection import Ask, Report

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Job:
    """What one turn asks of the engine, in ids.

    Attributes:
        state: where it starts.
        position: of that state: the length of the transcript.
        prompt: read first. With `max_chars` 0 nothing is sampled: the job only reads.
        sampling: how characters are sampled; unused by a job that only reads.
        recent: the end of the transcript before the prompt, as far as the repetition window reaches.
        stops: stop strings.
        read_out: of a job that only reads: what to return for each character of the prompt, "" the labels that the
            model has for output, else the name of a probe; None: nothing.
        window: how many characters may be sampled, or watched, ahead of the reader.
        owner: whose job it is; owners get equal parts of the rows. The engine's client sets it.
        inspect: of a job that only reads, behind all turns: what to report of the network.
    """

    state: SessionState
    position: int
    prompt: list[int]
    max_chars: int = 0
    sampling: Sampling = Sampling(seed=0)
    recent: list[int] = field(default_factory=list)
    stops: list[list[int]] = field(default_factory=list)
    include_stop: bool = False
    detail: Detail = Detail()
    read_out: str | None = None
    window: int = 1024
    owner: str = ""
    inspect: Ask | None = None


@dataclass(frozen=True, slots=True)
class IdEffective:
    """What one character was sampled from, in ids; see `EffectiveDistribution`."""

    log_probability: float
    top: list[tuple[int, float]]
    num_kept: int
    uniform: float
    below: float


class IdDetail(msgspec.Struct, frozen=True, array_like=True):
    """How likely one character was: its log-probability in nats and (id, log-probability) of the likeliest."""

    log_probability: float | None
    top: list[tuple[int, float]]
    effective: IdEffective | None = None


_details: Final = msgspec.msgpack.Decoder(list[IdDetail])
_labels: Final = msgspec.msgpack.Decoder(list[list[float]])


def pack(values: Sequence[IdDetail] | list[list[float]]) -> bytes:
    """Return details or labels of some characters as bytes: as objects they take ten times as much memory."""
    return msgspec.msgpack.encode(values)


def unpack_details(packed: bytes) -> list[IdDetail]:
    """Return the details that were packed."""
    return _details.decode(packed)


def unpack_labels(packed: bytes) -> list[list[float]]:
    """Return the labels' log-probabilities that were packed, by character."""
    return _labels.decode(packed)


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the engine returns of a job, in order.

    Attributes:
        stream: which job.
        ids: sampled characters.
        details: of those ids, each packed; of a job that only reads, of the characters read, packed together.
        state: after the last of `ids`; only now and then, and at the end.
        finished: why the job is over, on its last output; a job that only reads ends with MAX_CHARS.
        stop: the index of the stop string that ended it.
        not_finite: the row's logits are not finite; the job is over.
        labels: of a job with a read-out: log-probabilities in nats of the labels, once more characters were read,
            packed together.
        report: of an inspection.
    """

    stream: int
    ids: list[int] = []
    details: list[bytes] = []
    state: SessionState | None = None
    finished: FinishReason | None = None
    stop: int = -1
    not_finite: bool = False
    labels: list[bytes] = []
    report: Report | None = None


class StopMatcher:
    """Watches sampled ids for stop strings, one id at a time (Knuth, Morris, Pratt 1977).

    Attributes:
        held: how many last ids are the beginning of a stop string, and must not be sent yet.
    """

    def __init__(self, stops: Sequence[Sequence[int]]) -> None:
        self._stops = [tuple(stop) for stop in stops]
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        self.held = 0

    def push(self, character: int) -> int | None:
        """Add the next id; return the index of the longest stop string that it completes, if any."""
        complete = None
        for index, stop in enumerate(self._stops):
            matched, borders = self._matched[index], self._borders[index]
            while matched and (matched == len(stop) or stop[matched] != character):
                matched = borders[matched - 1]
            matched += stop[matched] == character
            self._matched[index] = matched
            if matched == len(stop) and (complete is None or matched > len(self._stops[complete])):
                complete = index
        self.held = max(self._matched)
        return complete


def _borders(stop: tuple[int, ...]) -> list[int]:
    """Return for each prefix of `stop` the length of its longest proper prefix that also ends it."""
    borders = [0] * len(stop)
    length = 0
    for index in range(1, len(stop)):
        while length and stop[index] != stop[length]:
            length = borders[length - 1]
        length += stop[index] == stop[length]
        borders[index] = length
    return borders
