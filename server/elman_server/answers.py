"""Answers: what the engine says in ids, as callers get it in text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman_server.generation import CharacterDetail, Chunk, IdDetail, Job, Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elman_server.turn import Turn
    from elman_server.vocabulary import Decoder, Vocabulary


def chunks(output: Output, turn: Turn, decoder: Decoder, vocabulary: Vocabulary, chunk_chars: int) -> Iterator[Chunk]:
    """Yield an output's text in pieces of at most `chunk_chars`; a piece counts as handed over when it is yielded."""
    progress = turn.progress
    if output.memory is not None:
        progress.remember(len(progress.handed) + len(output.ids), output.memory)
    size = chunk_chars or max(1, len(output.ids))
    for at in range(0, len(output.ids), size):
        ids = output.ids[at : at + size]
        text = decoder.decode(ids)
        progress.hand(ids)
        details = _details(ids, output.details[at : at + size], vocabulary)
        if text or details:
            yield Chunk(text, turn.position, details)


def read_details(job: Job, details: list[IdDetail], vocabulary: Vocabulary) -> tuple[CharacterDetail, ...]:
    """Return the details of a text that was read; nothing was before the first character of a new memory."""
    if not job.detail:
        return ()
    first = [] if job.position else [IdDetail(None, [])]
    return _details(job.prompt, [*first, *details], vocabulary)


def _details(ids: list[int], details: list[IdDetail], vocabulary: Vocabulary) -> tuple[CharacterDetail, ...]:
    return tuple(
        CharacterDetail(
            text=vocabulary.symbol(character),
            log_probability=detail.log_probability,
            top=tuple((vocabulary.symbol(other), nats) for other, nats in detail.top),
        )
        for character, detail in zip(ids, details, strict=False)
    )
