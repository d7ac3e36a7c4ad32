"""A text as an artefact reads it: what was trained on, what is evaluated, in the artefact's own ids."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elman_export.errors import CorpusError
from elman_export.loss import WINDOW
from elman_export.vocabulary import NUM_BYTES, Vocabulary

Ids = NDArray[np.int64]

TRAINING_PERCENT = 90  # the beginning of the text, as corpus.py has it; the rest is evaluated
MIN_EVALUATED = 2 * WINDOW + 1  # symbols: two windows, for a standard error
# What n-grams are counted in at most, the text just before the evaluated part. They need some hundred bytes a symbol.
MAX_COUNTED = 10_000_000
MAX_SHOWN = 10  # unknown characters in a message
CONTINUATION = (0xC0, 0x80)  # UTF-8: mask and value of the bytes that continue a character


@dataclass(frozen=True, slots=True)
class Split:
    """A text in two parts.

    Attributes:
        sha256: Of the whole file.
        is_whole: Whether all of it is evaluated.
        training: ``[M]`` ids of the training part, or of its end if it is long; empty if all is evaluated. Characters
            that the vocabulary lacks have ids from V on.
        evaluated: ``[N]`` ids.
        characters: ``[N]``, whether a symbol begins a character; not all bytes do.
        num_symbols: How many different ones there are: V, and those that only the training part has.
    """

    sha256: str
    is_whole: bool
    training: Ids
    evaluated: Ids
    characters: NDArray[np.bool_]
    num_symbols: int


def read_split(path: Path, vocabulary: Vocabulary, *, is_whole: bool = False) -> Split:
    """Read a UTF-8 text for an artefact.

    Args:
        path: The file.
        vocabulary: The artefact's.
        is_whole: Evaluate all of it, not the last part alone.

    Raises:
        CorpusError: It cannot be read, is no UTF-8, is too short, or has characters that the artefact does not know.
    """
    content, text = _read(path)
    source = content if vocabulary is None else text
    cut = 0 if is_whole else len(source) * TRAINING_PERCENT // 100
    training, evaluated = _symbols(source[max(0, cut - MAX_COUNTED) : cut]), _symbols(source[cut:])
    if len(evaluated) < MIN_EVALUATED:
        raise CorpusError(
            f"The text {path} has {len(evaluated):,} {'' if is_whole else 'held-out '}symbols, evaluation needs "
            f"{MIN_EVALUATED}: take a longer text{'' if is_whole else ', or --whole if all of it is held out'}."
        )
    sha256 = hashlib.sha256(content).hexdigest()
    if vocabulary is None:
        characters = (evaluated & CONTINUATION[0]) != CONTINUATION[1]
        return Split(sha256, is_whole, training, evaluated, characters, NUM_BYTES)
    training, evaluated = _to_ids(vocabulary, training), _to_ids(vocabulary, evaluated)
    _check_known(path, evaluated, len(vocabulary))
    num_foreign = len(np.unique(training[training >= len(vocabulary)]))
    characters = np.ones(len(evaluated), np.bool_)
    return Split(sha256, is_whole, training, evaluated, characters, len(vocabulary) + num_foreign)


def _read(path: Path) -> tuple[bytes, str]:
    try:
        content = path.read_bytes()
        return content, content.decode()
    except OSError as error:
        raise CorpusError(f"Cannot read the text {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"The text {path} is not UTF-8 (byte {error.start}): convert it first, for example with iconv."
        ) from error


def _symbols(source: bytes | str) -> Ids:
    """Bytes, or code points."""
    if isinstance(source, bytes):
        return np.frombuffer(source, np.uint8).astype(np.int64)
    return np.frombuffer(source.encode("utf-32-le"), "<u4").astype(np.int64)


def _to_ids(vocabulary: tuple[str, ...], points: Ids) -> Ids:
    """Code points to ids; one that the vocabulary lacks lies above all ids by its own value, V + code point."""
    own = _symbols("".join(vocabulary))
    order = np.argsort(own)
    places = np.searchsorted(own[order], points).clip(max=len(own) - 1)
    return np.where(own[order][places] == points, order[places], len(own) + points)


def _check_known(path: Path, ids: Ids, num_known: int) -> None:
    foreign = np.unique(ids[ids >= num_known]) - num_known
    if not len(foreign):
        return
    shown = " ".join(ascii(chr(point)) for point in foreign[:MAX_SHOWN])
    raise CorpusError(
        f"The text {path} has {len(foreign)} characters that the model does not know, {shown}"
        f"{' …' if len(foreign) > MAX_SHOWN else ''}: evaluate it on the kind of text that it was trained on, "
        "or train a model on bytes."
    )
