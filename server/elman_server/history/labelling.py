"""Labellings: a number for each character of a text, which units are compared with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import re2

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.inspection import TextProperty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_PATTERN: Final = 1000  # characters
SEARCH_SECONDS: Final = 2.0  # RE2 takes linear time for each match, but there may be as many as characters


def matches(pattern: str, text: str) -> list[float]:
    """Return 1 for every character of every match of a regular expression (RE2), else 0.

    It may take SEARCH_SECONDS, most of them without the interpreter's lock: call it in a thread.

    Raises:
        InvalidFieldError: it is no regular expression of RE2, too long, or too slow on this text.
    """
    if not 0 < len(pattern) <= MAX_PATTERN:
        raise InvalidFieldError("pattern", f"has {len(pattern)} characters; 1 to {MAX_PATTERN} are allowed")
    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(pattern, options).finditer(text)
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidFieldError("pattern", f"is no regular expression of RE2: {_reason(error)}") from None
    labels = [0.0] * len(text)
    deadline = time.monotonic() + SEARCH_SECONDS
    for match in found:
        labels[match.start() : match.end()] = [1.0] * (match.end() - match.start())
        if time.monotonic() > deadline:
            raise InvalidFieldError("pattern", f"takes more than {SEARCH_SECONDS:g} s on this text; use a simpler one")
    return labels


def labelled(text_property: TextProperty, text: str) -> list[float]:
    """Return the property of each character."""
    return list(map(float, _PROPERTIES[text_property](text)))


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else "it holds half a character"


def _line_position(text: str) -> Iterator[int]:
    position = 0
    for character in text:
        position = 0 if character == "\n" else position + 1
        yield position


def _word_position(text: str) -> Iterator[int]:
    position = 0
    for character in text:
        position = position + 1 if character.isalnum() else 0
        yield position


def _inside_quotes(text: str) -> Iterator[bool]:
    is_inside = False
    for character in text:
        is_inside ^= character == '"'
        yield is_inside


def _line_start(text: str) -> Iterator[bool]:
    before = ""
    for character in text:
        yield before == "\n"
        before = character


_PROPERTIES: Final[Mapping[TextProperty, Callable[[str], Iterator[float]]]] = {
    TextProperty.LINE_POSITION: _line_position,
    TextProperty.INSIDE_QUOTES: _inside_quotes,
    TextProperty.LINE_START: _line_start,
    TextProperty.INSIDE_WORD: lambda text: map(str.isalnum, text),
    TextProperty.WORD_POSITION: _word_position,
    TextProperty.CAPITAL: lambda text: map(str.isupper, text),
}
