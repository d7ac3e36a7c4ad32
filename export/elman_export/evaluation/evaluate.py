"""How well an artefact predicts a text: the file itself run by onnxruntime, not its checkpoint.

Two protocols. *Streaming*: one pass with the state carried, as a session reads. *Windows of 256*: the state is reset
every 256 symbols, comparable with a transformer of that context. Both predict every symbol of the text except the
first, so their losses can be compared in pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.runtime import Array, Runtime
from elman_export.errors import ArtefactError
from elman_export.evaluation.kneser_ney import kneser_ney_losses
from elman_export.evaluation.loss import WINDOW, Loss, Losses
from elman_export.evaluation.split import MAX_COUNTED, Split

STREAMING, WINDOWS, COUNTING = "streaming", f"windows-{WINDOW}", "kneser-ney-5"
HALVES = ("first-half", "second-half")
MAX_ROWS = 64  # windows in parallel; rows are independent
MAX_LOGITS = 1 << 22  # numbers at a time

Ids = NDArray[np.int64]
Advance = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The loss of every symbol of a text except the first, in nats, by each protocol and by counting.

    Attributes:
        split: The text.
        losses: Protocol to ``[N - 1]``.
        counting: ``[N - 1]`` of the Kneser-Ney 5-gram model of the training part; None if there is none.
    """

    split: Split
    losses: dict[str, Losses]
    counting: Losses | None

    def loss(self, losses: Losses) -> Loss:
        """The mean over the evaluated text."""
        return Loss.of(losses, self.split.characters[1:])

    def halves(self, losses: Losses) -> tuple[Loss, Loss]:
        """The means over its first and its second half."""
        characters, middle = self.split.characters[1:], len(losses) // 2
        return Loss.of(losses[:middle], characters[:middle]), Loss.of(losses[middle:], characters[middle:])

    def gain(self) -> Loss | None:
        """The loss of counting less that of streaming; the error is that of the paired difference."""
        return None if self.counting is None else self.loss(self.counting - self.losses[STREAMING])

    def records(self) -> list[dict[str, Any]]:
        """The records of the artefact; rounded, so that the last bits do not change the digest."""
        return [
            {
                "corpus_sha256": self.split.sha256,
                "protocol": f"{protocol}-whole" if self.split.is_whole else protocol,
                "nats_per_character": round(loss.nats, 6),
                "standard_error": round(loss.standard_error, 6),
                "num_characters": loss.num_characters,
            }
            for protocol, loss in self._measurements()
        ]

    def _measurements(self) -> Iterator[tuple[str, Loss]]:
        for protocol, losses in self.losses.items():
            yield protocol, self.loss(losses)
            for name, half in zip(HALVES, self.halves(losses), strict=True):
                yield f"{protocol}-{name}", half
        if self.counting is not None:
            yield COUNTING, self.loss(self.counting)


def evaluate(artefact: Artefact, split: Split, advance: Advance = lambda _: None) -> Evaluation:
    """Run an artefact over the evaluated part of a text.

    Args:
        artefact: The model.
        split: The text, in the artefact's ids.
        advance: Called with the number of symbols read since the last call, `num_steps` in total.

    Raises:
        ArtefactError: It predicts labels instead of symbols, onnxruntime refuses it, or its logits are not finite.
    """
    check_predicts(artefact)
    counting = _count(split) if len(split.training) else None
    reader = _Reader(artefact, split.evaluated, advance)
    losses = {STREAMING: reader.streaming(), WINDOWS: reader.windows()}
    for protocol, found in losses.items():
        _check_finite(found, protocol)
    return Evaluation(split, losses, counting)


def streaming_losses(artefact: Artefact, split: Split, advance: Advance = lambda _: None) -> Losses:
    """Streaming alone: nats for every symbol of the evaluated part except the first, ``[N - 1]``.

    Raises:
        ArtefactError: As `evaluate`.
    """
    check_predicts(artefact)
    losses = _Reader(artefact, split.evaluated, advance).streaming()
    _check_finite(losses, STREAMING)
    return losses


def _check_finite(losses: Losses, protocol: str) -> None:
    if not np.isfinite(losses).all():
        raise ArtefactError(
            f"The logits are not finite after {int(np.argmin(np.isfinite(losses))) + 1:,} symbols ({protocol}): "
            "no text can be sampled from such a model. Train it again, with a lower --learning-rate."
        )


def num_steps(split: Split) -> int:
    """The number of symbols that `evaluate` reads."""
    return 2 * (len(split.evaluated) - 1)


def check_predicts(artefact: Artefact) -> None:
    """Refuse a tagging model.

    Raises:
        ArtefactError: Its logits are not over its vocabulary.
    """
    if labels := artefact.metadata.labels:
        raise ArtefactError(
            f"{artefact.metadata.name} gives {len(labels)} labels, not the next of its "
            f"{artefact.metadata.vocabulary_size} symbols: only a model that predicts text can be evaluated on one."
        )


def with_records(artefact: Artefact, evaluation: Evaluation) -> Artefact:
    """The artefact with the records of an evaluation; they replace earlier ones of the same text and protocol."""
    records = evaluation.records()
    replaced = {(record["corpus_sha256"], record["protocol"]) for record in records}
    kept = [
        record
        for record in artefact.metadata.evaluation
        if (record.get("corpus_sha256"), record.get("protocol")) not in replaced
    ]
    return artefact.with_metadata(replace(artefact.metadata, evaluation=(*kept, *records)))


def _count(split: Split) -> Losses:
    """The n-gram model's losses, ``[N - 1]``; a very long text in pieces, to bound the memory."""
    starts = range(0, len(split.evaluated) - 1, MAX_COUNTED)
    pieces = [split.evaluated[start : start + MAX_COUNTED + 1] for start in starts]  # the last symbol is the next first
    return np.concatenate([kneser_ney_losses(split.training, piece, split.num_symbols) for piece in pieces])


class _Reader:
    """Reads a text with an artefact."""

    def __init__(self, artefact: Artefact, ids: Ids, advance: Advance) -> None:
        self._runtime = Runtime(artefact)
        self._chars, self._targets = ids[:-1], ids[1:]
        self._num_rows = max(1, min(MAX_ROWS, MAX_LOGITS // (WINDOW * artefact.metadata.vocabulary_size)))
        self._advance = advance
        self._specials = list(artefact.metadata.specials.values())

    def streaming(self) -> Losses:
        """``[N - 1]``: one row, chunk by chunk; the length of a chunk changes no bit."""
        state = self._runtime.initial_state(1)
        parts: list[Losses] = []
        for start in range(0, len(self._chars), WINDOW):
            losses, state = self._read(self._column(self._chars, start), self._column(self._targets, start), state)
            parts.append(losses[:, 0])
        return np.concatenate(parts)

    def windows(self) -> Losses:
        """``[N - 1]``: parallel windows, each from the initial state of a session."""
        num_whole = len(self._chars) // WINDOW
        whole = num_whole * WINDOW
        chars, targets = (ids[:whole].reshape(num_whole, WINDOW).T for ids in (self._chars, self._targets))
        parts: list[Losses] = []
        for first in range(0, num_whole, self._num_rows):
            rows = slice(first, first + self._num_rows)
            losses, _ = self._read(chars[:, rows], targets[:, rows])
            parts.append(losses.T.ravel())
        if whole < len(self._chars):
            losses, _ = self._read(self._column(self._chars, whole), self._column(self._targets, whole))
            parts.append(losses[:, 0])
        return np.concatenate(parts)

    def _column(self, ids: Ids, start: int) -> Ids:
        """A window of the text as one row, ``[T, 1]``."""
        return ids[start : start + WINDOW, None]

    def _read(self, chars: Ids, targets: Ids, state: list[Array] | None = None) -> tuple[Losses, list[Array]]:
        """The losses of ``[T, B]`` targets, and the states after them."""
        state = self._runtime.initial_state(chars.shape[1]) if state is None else state
        logits, state = self._runtime.advance(np.ascontiguousarray(chars), state)
        self._advance(chars.size)
        logits[..., self._specials] = -np.inf  # as a server has it: they are never sampled
        return _cross_entropy(logits, targets), state


@np.errstate(invalid="ignore")  # infinity minus infinity: the caller checks for NaN
def _cross_entropy(logits: Array, targets: Ids) -> Losses:
    """-log softmax(logits)[target], in float64: ``[T, B, V]`` and ``[T, B]`` to ``[T, B]``."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(wide, targets[..., None], axis=-1)[..., 0]
    return np.asarray(np.log(np.exp(wide).sum(axis=-1)) - chosen, np.float64)
