"""The strings of the format: names, versions, labels and vocabularies."""

import re
from collections.abc import Iterable
from typing import Any

from elman_format.errors import FormatError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
MAX_LABEL_CHARACTERS = 63
MIN_LABELS = 2
BYTES = "bytes"
NUM_BYTES = 256

SPECIAL = re.compile(r"<[^<>\s]{1,61}>|\[[^\[\]\s]{1,61}\]")  # <pad>, <|endoftext|>, [UNK]

# Characters and names of specials in id order; None: the 256 bytes.
Vocabulary = tuple[str, ...] | None


def check_name(what: str, name: Any) -> str:
    """Return a name of `NAME`.

    Raises:
        FormatError: It is another value; `what` says whose name it is.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise FormatError(f"{what} is {shown(name)}: it must match ^{NAME.pattern}$.")
    return name


def check_labels(what: str, labels: Any) -> tuple[str, ...]:
    """Return the labels if they are at least two distinct, short, printable strings.

    Raises:
        FormatError: They are not; `what` names their owner.
    """
    if not isinstance(labels, list | tuple) or len(labels) < MIN_LABELS:
        raise FormatError(f"{what} must be a list of at least two labels.")
    for label in labels:
        if not isinstance(label, str) or not label.isprintable() or not 0 < len(label) <= MAX_LABEL_CHARACTERS:
            raise FormatError(
                f"{what} hold {shown(label)}: a label is a printable string of 1 to {MAX_LABEL_CHARACTERS} characters."
            )
    if len(set(labels)) != len(labels):
        repeated = next(label for label in labels if labels.count(label) > 1)
        raise FormatError(f"{what} hold {shown(repeated)} twice: labels must be distinct.")
    return tuple(labels)


def check_vocabulary(symbols: Any) -> tuple[str, ...]:
    """Return the symbols if they are distinct: single characters, at least one, and names of specials.

    Raises:
        FormatError: There is no character, or an entry is neither one UTF-8 character nor a special, or is repeated.
    """
    if not isinstance(symbols, list | tuple) or not symbols:
        raise FormatError('The vocabulary must be a list of characters, or "bytes".')
    seen: set[str] = set()
    for symbol in symbols:
        if not isinstance(symbol, str) or not (_is_character(symbol) or _is_special_name(symbol)):
            raise FormatError(
                f"The vocabulary holds {shown(symbol)}, which is not one character. A special that is never sampled is "
                "written as <pad> or [PAD]."
            )
        if symbol in seen:
            raise FormatError(f"The vocabulary holds {shown(symbol)} twice: symbols must be distinct.")
        seen.add(symbol)
    if len(specials_of(symbols)) == len(symbols):
        raise FormatError("The vocabulary holds no character: add those that the model reads and generates.")
    return tuple(symbols)


def specials_of(symbols: Iterable[str]) -> dict[str, int]:
    """The specials of a vocabulary, name to id: symbols that stand for no text and are never read nor sampled."""
    return {symbol: index for index, symbol in enumerate(symbols) if len(symbol) > 1}


def _is_character(symbol: str) -> bool:
    return len(symbol) == 1 and not "\ud800" <= symbol <= "\udfff"


def _is_special_name(symbol: str) -> bool:
    return symbol.isprintable() and bool(SPECIAL.fullmatch(symbol))


def shown(value: Any) -> str:
    """Return a value of a file for a message: one line of ASCII, at most 80 characters of it."""
    return ascii(value[:80] if isinstance(value, str) else value)[:80]
