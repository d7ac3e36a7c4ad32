"""Vocabularies: which character has which id."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_export.errors import ArtefactError, CorpusError

BYTES = "bytes"
NUM_BYTES = 256

# Characters in id order; None: the 256 bytes.
Vocabulary = tuple[str, ...] | None


def check_vocabulary(symbols: Any) -> tuple[str, ...]:
    """Return the symbols if they are distinct single characters.

    Raises:
        ArtefactError: The list is empty, or an entry is not one UTF-8 character or is repeated.
    """
    if not isinstance(symbols, list) or not symbols:
        raise ArtefactError('The vocabulary must be a list of characters, or "bytes".')
    seen: set[str] = set()
    for symbol in symbols:
        if not isinstance(symbol, str) or len(symbol) != 1 or "\ud800" <= symbol <= "\udfff":
            raise ArtefactError(f"The vocabulary holds {symbol!r:.80}, which is not one character.")
        if symbol in seen:
            raise ArtefactError(f"The vocabulary holds {symbol!r} twice: characters must be distinct.")
        seen.add(symbol)
    return tuple(symbols)


def read_vocabulary(source: str) -> Vocabulary:
    """Read what `--vocab` names.

    Args:
        source: A UTF-8 file that contains only the characters in id order, a JSON array of them
            (in a file whose name ends in .json), or the word `bytes`.

    Raises:
        ArtefactError: The file cannot be read or is not a vocabulary.
    """
    if source == BYTES:
        return None
    path = Path(source)
    try:
        text = path.read_bytes().decode()  # as bytes: line ends are characters too
        symbols = json.loads(text) if path.suffix == ".json" else list(text)
    except OSError as error:
        raise ArtefactError(f"Cannot read the vocabulary {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"The vocabulary {path} is not UTF-8 or not JSON: {error}.") from error
    return check_vocabulary(symbols)


def encode_text(vocabulary: Vocabulary, text: str, what: str) -> NDArray[np.int64]:
    """The ids of a text, [N]; of its UTF-8 bytes for a byte-level model.

    Raises:
        CorpusError: It is empty or holds a character that the model lacks; `what` names the text.
    """
    if not text:
        raise CorpusError(f"{what} is empty: give at least one character.")
    if vocabulary is None:
        try:
            return np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        except UnicodeEncodeError as error:
            raise CorpusError(f"{what} holds a lone surrogate at {error.start}, which UTF-8 cannot encode.") from error
    ids = {character: index for index, character in enumerate(vocabulary)}
    for index, character in enumerate(text):
        if character not in ids:
            raise CorpusError(f"{what} holds {character!a} at {index}, which the model's vocabulary lacks: remove it.")
    return np.array([ids[character] for character in text], np.int64)
