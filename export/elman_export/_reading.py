"""A text in a model's ids, and what it costs a model to predict it."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elman_export.artefact import Artefact
from elman_export.errors import ArtefactError, CorpusError
from elman_export.reference import Array
from elman_export.runtime import Runtime
from elman_export.vocabulary import Vocabulary

CHUNK = 256  # positions read at a time; it changes no figure
WINDOW = 256  # symbols; the losses of such windows count as independent of one another
MIN_SYMBOLS = 2 * WINDOW + 1
MAX_SHOWN = 10  # unknown characters in a message

Ids = NDArray[np.int64]
Losses = NDArray[np.float64]
Advance = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Text:
    """A text in a model's ids.

    Attributes:
        ids: [N] int64.
        sha256: Of the whole file.
    """

    ids: Ids
    sha256: str


def read_text(path: Path, vocabulary: Vocabulary) -> Text:
    """Read a UTF-8 file as a model does.

    Raises:
        CorpusError: It cannot be read, is too short, is not UTF-8, or has characters that the model does not know.
    """
    try:
        content = path.read_bytes()
        symbols = content.decode()
    except OSError as error:
        raise CorpusError(f"Cannot read the text {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"The text {path} is not UTF-8 (byte {error.start}): convert it first, for example with iconv."
        ) from error
    ids = _bytes(content) if vocabulary is None else _characters(path, symbols, vocabulary)
    if len(ids) < MIN_SYMBOLS:
        raise CorpusError(f"The text {path} has {len(ids)} symbols: give at least {MIN_SYMBOLS} of the usual kind.")
    return Text(ids, hashlib.sha256(content).hexdigest())


def _bytes(content: bytes) -> Ids:
    return np.frombuffer(content, np.uint8).astype(np.int64)


def _characters(path: Path, text: str, vocabulary: Sequence[str]) -> Ids:
    ids = {character: index for index, character in enumerate(vocabulary)}
    if unknown := sorted(set(text) - ids.keys()):
        shown = " ".join(ascii(character) for character in unknown[:MAX_SHOWN])
        raise CorpusError(
            f"The text {path} has {len(unknown)} characters that the model does not know, {shown}"
            f"{' …' if len(unknown) > MAX_SHOWN else ''}: give text of the kind that it was trained on."
        )
    return np.fromiter((ids[character] for character in text), np.int64, len(text))


def streaming_losses(artefact: Artefact, ids: Ids, advance: Advance = lambda _: None) -> NDArray[np.float64]:
    """Nats for every symbol but the first, [N - 1], predicted from all before it.

    Raises:
        ArtefactError: Logits are not finite.
    """
    runtime = Runtime(artefact)
    state = runtime.initial_state(1)
    losses: list[NDArray[np.float64]] = []
    for start in range(0, len(ids) - 1, CHUNK):
        chars, targets = ids[start : start + CHUNK], ids[start + 1 : start + CHUNK + 1]
        logits, state = runtime.read(chars[: len(targets), None], state)
        losses.append(_cross_entropies(logits[:, 0], targets))
        advance(len(targets))
    whole = np.concatenate(losses)
    if not np.isfinite(whole).all():
        raise ArtefactError(f"The logits of {artefact.metadata.name} are not finite on this text: train it again.")
    return whole


def mean_and_error(losses: Losses) -> tuple[float, float]:
    """The mean of at least two windows of losses, or of their differences, and its standard error."""
    windows = losses[: len(losses) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(axis=1)
    return float(losses.mean()), float(windows.std(ddof=1)) / math.sqrt(len(windows))


def _cross_entropies(logits: Array, targets: Ids) -> NDArray[np.float64]:
    """-log softmax(logits)[target], [T, V] and [T] to [T]."""
    wide = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses: NDArray[np.float64] = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(targets)), targets]
    return losses
