"""Answers: what the engine says in ids, as callers get it in text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from elman_server.generation import CharacterDetail, Chunk, IdDetail, Job, Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elman_server.models import ModelInfo
    from elman_server.turn import Reading, Turn
    from elman_server.vocabulary import Decoder, Vocabulary

_NOTHING: Final = IdDetail(None, [])


def chunks(output: Output, turn: Turn, decoder: Decoder, vocabulary: Vocabulary, chunk_chars: int) -> Iterator[Chunk]:
    """Yield an output's text in pieces of at most `chunk_chars`; a piece counts as handed over when it is yielded."""
    progress = turn.progress
    if output.memory is not None:
        progress.remember(len(progress.handed) + len(output.ids), output.memory)
    size = chunk_chars or max(1, len(output.ids))
    # The last output goes round even if it is empty: bytes of an unfinished character may still wait.
    for at in range(0, max(len(output.ids), output.finished is not None), size):
        ids = output.ids[at : at + size]
        is_last = output.finished is not None and at + size >= len(output.ids)
        text = decoder.decode(ids, final=is_last)
        progress.hand(ids)
        details = _details(ids, output.details[at : at + size], vocabulary)
        if text or details:
            yield Chunk(text, turn.position, details)


def read_details(job: Job, reading: Reading, model: ModelInfo) -> tuple[CharacterDetail, ...]:
    """Return the details of a text that was read; nothing was before the first character of a new memory."""
    if not job.detail and job.read_out is None:
        return ()
    first = [] if job.position else [_NOTHING]
    details = [*first, *reading.details] if job.detail else [_NOTHING] * len(job.prompt)
    told = _details(job.prompt, details, model.vocabulary)
    if job.read_out is None:
        return told
    names = model.labels_of(job.read_out)
    labels = reading.labels[bool(job.position) :]  # the pending character was read again: it is not of the text
    return tuple(
        replace(detail, labels=tuple(zip(names, nats, strict=True))) for detail, nats in zip(told, labels, strict=True)
    )


def _details(ids: list[int], details: list[IdDetail], vocabulary: Vocabulary) -> tuple[CharacterDetail, ...]:
    return tuple(
        CharacterDetail(
            text=vocabulary.symbol(character),
            log_probability=detail.log_probability,
            top=tuple((vocabulary.symbol(other), nats) for other, nats in detail.top),
        )
        for character, detail in zip(ids, details, strict=False)
    )
