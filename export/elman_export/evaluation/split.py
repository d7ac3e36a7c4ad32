"""A text in an artefact's ids: the part for training and the part for evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_export.errors import CorpusError
from elman_export.evaluation.corpus import read_corpus
from elman_export.evaluation.loss import WINDOW
from elman_format import Vocabulary
from elman_format.names import NUM_BYTES

Ids = NDArray[np.int64]

MIN_EVALUATED = 2 * WINDOW + 1  # symbols: two windows, for a standard error
# The most symbols in which n-grams are counted, just before the evaluated part. They need about a hundred bytes each.
MAX_COUNTED = 10_000_000
MAX_SHOWN = 10  # unknown characters in a message
CONTINUATION = (0xC0, 0x80)  # UTF-8: mask and value of the bytes that continue a character


@dataclass(frozen=True, slots=True)
class Split:
    """A text in two parts, divided as for training.

    Attributes:
        sha256: Of the whole file.
        is_whole: Whether the whole text is evaluated.
        training: ``[M]`` ids of the training part, or of its end if it is long; empty if the whole text is evaluated.
            Characters that the vocabulary lacks have ids from V on.
        evaluated: ``[N]`` ids.
        characters: ``[N]``, whether a symbol begins a character; not all bytes do.
        num_symbols: V plus the number of other characters in the text.
    """

    sha256: str
    is_whole: bool
    training: Ids
    evaluated: Ids
    characters: NDArray[np.bool_]
    num_symbols: int


def read_split(path: Path, vocabulary: Vocabulary, *, is_whole: bool = False) -> Split:
    """Read a text for an artefact.

    Args:
        path: A UTF-8 file; for a vocabulary of bytes any file.
        vocabulary: The artefact's.
        is_whole: Evaluate the whole text instead of the last part.

    Raises:
        CorpusError: It cannot be read, is not UTF-8, is too short, or has characters that the vocabulary lacks.
    """
    corpus = read_corpus(path, as_bytes=vocabulary is None)
    evaluated = corpus.ids if is_whole else corpus.validation
    if len(evaluated) < MIN_EVALUATED:
        raise CorpusError(
            f"The text {path} has {len(evaluated):,} {'' if is_whole else 'held-out '}symbols, evaluation needs "
            f"{MIN_EVALUATED}: take a longer text{'' if is_whole else ', or say that all of it is held out'}."
        )
    counted = corpus.ids[:0] if is_whole else corpus.training[-MAX_COUNTED:]
    if vocabulary is None or corpus.vocabulary is None:
        characters = (evaluated & CONTINUATION[0]) != CONTINUATION[1]
        return Split(corpus.sha256, is_whole, _wide(counted), _wide(evaluated), characters, NUM_BYTES)
    foreign = sorted(set(corpus.vocabulary) - set(vocabulary))
    own = {char: i for i, char in enumerate([*vocabulary, *foreign])}
    table = np.array([own[char] for char in corpus.vocabulary])  # from the text's ids to the artefact's
    ids = table[evaluated]
    _check_known(path, [foreign[i - len(vocabulary)] for i in np.unique(ids) if i >= len(vocabulary)])
    return Split(corpus.sha256, is_whole, table[counted], ids, np.ones(len(ids), np.bool_), len(own))


def _wide(ids: NDArray[Any]) -> Ids:
    return ids.astype(np.int64)


def _check_known(path: Path, foreign: list[str]) -> None:
    if not foreign:
        return
    shown = " ".join(map(ascii, foreign[:MAX_SHOWN]))
    raise CorpusError(
        f"The text {path} has {len(foreign)} characters that the model lacks, {shown}"
        f"{' …' if len(foreign) > MAX_SHOWN else ''}: evaluate it on the kind of text that it was trained on, "
        "or train a model on bytes."
    )
