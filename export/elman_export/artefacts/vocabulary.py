"""Vocabularies and labels from files, and the ids of a text."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.artefact import format_errors
from elman_export.errors import ArtefactError, CorpusError
from elman_format import BYTES, Vocabulary, check_labels, check_vocabulary


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
    with format_errors():
        return check_vocabulary(symbols)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a JSON file with an array of labels.

    Raises:
        ArtefactError: The file cannot be read or holds something else.
    """
    try:
        labels = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"Cannot read the labels {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"The labels {path} are not JSON: write an array of strings.") from error
    with format_errors():
        return check_labels(f"The labels {path}", labels)


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
