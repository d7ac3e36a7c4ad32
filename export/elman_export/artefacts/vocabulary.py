"""Vocabularies and labels from files, and the ids of a text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.artefact import format_errors
from elman_export.errors import ArtefactError, CorpusError
from elman_format import Vocabulary, check_labels, check_vocabulary
from elman_format.names import BYTES

_PICKLED = (b"\x80", b"PK\x03\x04")  # a pickle's beginning, and that of a file of torch.save
_AS_JSON = 'json.dump(stoi, open("vocab.json", "w"))'


def read_vocabulary(source: str) -> Vocabulary:
    """Read what `--vocab` names; a byte order mark at the beginning of a file is no character.

    Args:
        source: A UTF-8 file that contains only the characters in id order; a JSON array of them, or a JSON object of
            characters and ids either way round (in a file whose name ends in .json); or the word `bytes`. In JSON a
            name such as `<pad>` is a special, which is never sampled.

    Raises:
        ArtefactError: The file cannot be read or is not a vocabulary.
    """
    if source == BYTES:
        return None
    path = Path(source)
    try:
        content = path.read_bytes()  # as bytes: line ends are characters too
        if content.startswith(_PICKLED):
            raise ArtefactError(f"The vocabulary {path} is a pickle: write it as JSON, {_AS_JSON}.")
        text = content.decode("utf-8-sig")
        symbols = json.loads(text) if path.suffix == ".json" else list(text)
    except OSError as error:
        raise ArtefactError(f"Cannot read the vocabulary {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"The vocabulary {path} is not UTF-8 or not JSON: {error}.") from error
    if isinstance(symbols, dict):
        symbols = _in_id_order(path, symbols)
    with format_errors():
        return check_vocabulary(symbols)


def _in_id_order(path: Path, symbols: dict[str, Any]) -> list[str]:
    """The characters of an object of characters and ids, or of ids and characters."""
    if all(isinstance(value, str) for value in symbols.values()):
        pairs = {key: value for value, key in symbols.items()}  # ids are strings in JSON: {"0": "a"}
    else:
        pairs = symbols
    try:
        ids = {int(index): character for character, index in pairs.items()}
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"The vocabulary {path} must be an object of characters and ids.") from error
    if sorted(ids) != list(range(len(symbols))):
        raise ArtefactError(f"The ids of the vocabulary {path} must be 0 to {len(symbols) - 1}, each of them once.")
    return [ids[index] for index in range(len(ids))]


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
