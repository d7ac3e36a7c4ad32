"""Answers: what the engine says in ids, as callers get it in text."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from elman_server.domain.events import CharacterDetail, Chunk, EffectiveDistribution
from elman_server.engine.job import IdDetail, Job, Output, unpack_details, unpack_labels
from elman_server.process.observe.call import this_call
from elman_server.process.observe.counters import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from elman_server.domain.requests import Detail
    from elman_server.domain.vocabulary import Decoder, Vocabulary
    from elman_server.engine.job import IdEffective
    from elman_server.engine.prefill import Reading
    from elman_server.models.registry import ModelInfo
    from elman_server.turns.planning import Plan
    from elman_server.turns.running_turn import RunningTurn

REPLAY_CHARS: Final = 1024  # in one chunk of a text that is delivered again
MAX_CANDIDATES: Final = 256  # in one chunk: they take memory while the chunk is sent
_NOTHING: Final = IdDetail(None, [])


def chunks(output: Output, turn: RunningTurn, decoder: Decoder, plan: Plan) -> Iterator[Chunk]:
    """Yield an output's text in pieces of at most `chunk_chars`; a piece counts as delivered when it is yielded.

    Up to `plan.known` the reader has the text already: it is kept and not yielded.
    """
    if output.state is not None:
        turn.progress.remember(len(turn.progress.delivered) + len(output.ids), output.state)
    size = _size(plan.parameters.chunk_chars or max(1, len(output.ids)), plan.parameters.detail)
    counters, call = COUNTERS.models[plan.model.name], this_call()
    at = 0
    while at < len(output.ids):
        is_known = turn.position < plan.known
        end = at + (min(size, plan.known - turn.position) if is_known else size)
        ids = output.ids[at:end]
        text = decoder.decode(ids)
        turn.deliver(ids)
        details = _details(ids, output.details[at:end], plan.model.vocabulary) if output.details else ()
        at = end
        if (text or details) and not is_known:
            counters.delivered(len(ids), call)
            yield Chunk(text, turn.position, details, turn.durable)


def replayed(
    ids: list[int],
    position: int,
    details: Iterable[CharacterDetail],
    decoder: Decoder,
    *,
    chunk_chars: int,
    detail: Detail,
) -> Iterator[Chunk]:
    """Yield text that is durable in pieces; `position` is that of the first id, `details` of all or none."""
    size = _size(chunk_chars or REPLAY_CHARS, detail)
    end = position + len(ids)
    each = iter(details)
    for at in range(0, len(ids), size):
        piece = ids[at : at + size]
        text = decoder.decode(piece)
        shown = tuple(islice(each, len(piece)))
        if text or shown:
            yield Chunk(text, position + at + len(piece), shown, end)


class TextDetails:
    """The details of a text that was read, in the order of its characters; each is made when it is asked for."""

    def __init__(self, job: Job, reading: Reading, model: ModelInfo) -> None:
        self._job = job
        self._reading = reading
        self._model = model

    def __len__(self) -> int:
        return len(self._job.prompt)

    def __iter__(self) -> Iterator[CharacterDetail]:
        job, vocabulary = self._job, self._model.vocabulary
        names = () if job.read_out is None else self._model.labels_of(job.read_out)
        labels = self._labels()
        for character, detail in zip(job.prompt, self._ids(), strict=True):
            shown = _shown(character, detail, vocabulary)
            yield replace(shown, labels=tuple(zip(names, next(labels), strict=True))) if names else shown

    def _ids(self) -> Iterator[IdDetail]:
        if not self._job.detail:
            yield from (_NOTHING for _ in self._job.prompt)
            return
        if not self._job.position:
            yield _NOTHING  # nothing was before the first character of a new state
        for packed in self._reading.details:
            yield from unpack_details(packed)

    def _labels(self) -> Iterator[list[float]]:
        each = (labels for packed in self._reading.labels for labels in unpack_labels(packed))
        return islice(
            each, bool(self._job.position), None
        )  # the pending character was read again: it is not the text's


def _size(chars: int, detail: Detail) -> int:
    """Return how many characters a chunk has, of as many as it might have."""
    return min(chars, max(1, MAX_CANDIDATES // ((1 + detail.effective) * (1 + detail.top_n)))) if detail else chars


def _details(ids: list[int], details: Sequence[bytes], vocabulary: Vocabulary) -> tuple[CharacterDetail, ...]:
    return tuple(
        _shown(character, unpack_details(packed)[0], vocabulary)
        for character, packed in zip(ids, details, strict=False)
    )


def _shown(character: int, detail: IdDetail, vocabulary: Vocabulary) -> CharacterDetail:
    return CharacterDetail(
        text=vocabulary.symbol(character),
        log_probability=detail.log_probability,
        top=_symbols(detail.top, vocabulary),
        effective=None if detail.effective is None else _effective(detail.effective, vocabulary),
    )


def _effective(found: IdEffective, vocabulary: Vocabulary) -> EffectiveDistribution:
    top = _symbols(found.top, vocabulary)
    return EffectiveDistribution(found.log_probability, top, found.num_kept, found.uniform, found.below)


def _symbols(top: Sequence[tuple[int, float]], vocabulary: Vocabulary) -> tuple[tuple[str, float], ...]:
    return tuple((vocabulary.symbol(other), nats) for other, nats in top)
