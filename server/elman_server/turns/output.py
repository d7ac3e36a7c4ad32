"""Answers: what the engine says in ids, as callers get it in text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from elman_server.domain.events import CharacterDetail, Chunk, EffectiveDistribution
from elman_server.engine.job import IdDetail, Job, Output
from elman_server.process.observe.call import this_call
from elman_server.process.observe.counters import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elman_server.domain.vocabulary import Decoder, Vocabulary
    from elman_server.engine.job import IdEffective
    from elman_server.engine.prefill import Reading
    from elman_server.models.registry import ModelInfo
    from elman_server.turns.planning import Plan
    from elman_server.turns.running_turn import RunningTurn

REPLAY_CHARS: Final = 1024  # in one chunk of a text that is delivered again
_NOTHING: Final = IdDetail(None, [])


def chunks(output: Output, turn: RunningTurn, decoder: Decoder, plan: Plan) -> Iterator[Chunk]:
    """Yield an output's text in pieces of at most `chunk_chars`; a piece counts as delivered when it is yielded.

    Up to `plan.known` the reader has the text already: it is kept and not yielded.
    """
    if output.state is not None:
        turn.progress.remember(len(turn.progress.delivered) + len(output.ids), output.state)
    size = plan.parameters.chunk_chars or max(1, len(output.ids))
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
    details: Sequence[CharacterDetail],
    decoder: Decoder,
    *,
    chunk_chars: int,
) -> Iterator[Chunk]:
    """Yield text that is durable in pieces; `position` is that of the first id, `details` of all or none."""
    size = chunk_chars or REPLAY_CHARS
    end = position + len(ids)
    for at in range(0, len(ids), size):
        piece = ids[at : at + size]
        text = decoder.decode(piece)
        shown = tuple(details[at : at + size])
        if text or shown:
            yield Chunk(text, position + at + len(piece), shown, end)


def read_details(job: Job, reading: Reading, model: ModelInfo) -> tuple[CharacterDetail, ...]:
    """Return the details of a text that was read; nothing was before the first character of a new state."""
    if not job.detail and job.read_out is None:
        return ()
    first = [] if job.position else [_NOTHING]
    details = [*first, *reading.details] if job.detail else [_NOTHING] * len(job.prompt)
    shown = _details(job.prompt, details, model.vocabulary)
    if job.read_out is None:
        return shown
    names = model.labels_of(job.read_out)
    labels = reading.labels[bool(job.position) :]  # the pending character was read again: it is not part of the text
    return tuple(
        replace(detail, labels=tuple(zip(names, nats, strict=True))) for detail, nats in zip(shown, labels, strict=True)
    )


def _details(ids: list[int], details: list[IdDetail], vocabulary: Vocabulary) -> tuple[CharacterDetail, ...]:
    return tuple(
        CharacterDetail(
            text=vocabulary.symbol(character),
            log_probability=detail.log_probability,
            top=_symbols(detail.top, vocabulary),
            effective=None if detail.effective is None else _effective(detail.effective, vocabulary),
        )
        for character, detail in zip(ids, details, strict=False)
    )


def _effective(found: IdEffective, vocabulary: Vocabulary) -> EffectiveDistribution:
    top = _symbols(found.top, vocabulary)
    return EffectiveDistribution(found.log_probability, top, found.num_kept, found.uniform, found.below)


def _symbols(top: Sequence[tuple[int, float]], vocabulary: Vocabulary) -> tuple[tuple[str, float], ...]:
    return tuple((vocabulary.symbol(other), nats) for other, nats in top)
