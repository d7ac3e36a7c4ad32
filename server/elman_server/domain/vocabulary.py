"""A model's vocabulary: text to ids and back."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from elman_format import specials_of
from elman_server.domain.errors import InvalidFieldError, UnknownCharacterError

if TYPE_CHECKING:
    from collections.abc import Sequence

NUM_BYTES: Final = 256
MAX_UNFINISHED: Final = 3  # bytes of a UTF-8 character but its last
MAX_REPORTED: Final = 10  # error details travel in trailers: keep them small
MAX_SHOWN: Final = 20  # characters of what should be one


@dataclass(frozen=True, slots=True)
class Unknown:
    """What to do with characters that are not in the vocabulary: reject (default), skip or replace."""

    skip: bool = False
    replace_with: str | None = None


REJECT: Final = Unknown()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The symbols of a model in id order; `characters` is None for a byte-level model.

    A symbol of several characters, such as `<pad>`, is a special: no text is read as it, and it is never sampled.
    """

    characters: tuple[str, ...] | None
    _specials: dict[str, int] = field(init=False, repr=False, compare=False)
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        specials = specials_of(self.characters or ())
        ids = {symbol: index for index, symbol in enumerate(self.characters or ()) if symbol not in specials}
        object.__setattr__(self, "_specials", specials)
        object.__setattr__(self, "_ids", ids)

    @property
    def specials(self) -> dict[str, int]:
        """Their names and ids."""
        return self._specials

    def __len__(self) -> int:
        return NUM_BYTES if self.characters is None else len(self.characters)

    def encode(self, text: str, field_name: str, unknown: Unknown = REJECT) -> list[int]:
        """Return the ids of `text`; byte-level: of its UTF-8 bytes.

        Raises:
            UnknownCharacterError: a character is not in the vocabulary and `unknown` rejects, or the replacement is not
                in it; byte-level: a lone surrogate, which UTF-8 cannot hold.
        """
        if self.characters is None:
            return _utf8(text, field_name)
        other = unknown.replace_with
        replacement = None if other is None else self.id_of(other, "unknown_characters.replace_with")
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            pass
        if unknown.skip:
            return [self._ids[character] for character in text if character in self._ids]
        if replacement is not None:
            return [self._ids.get(character, replacement) for character in text]
        missing = self.unknown(text)
        raise UnknownCharacterError(field_name, missing[:MAX_REPORTED], len(missing))

    def unknown(self, text: str) -> list[tuple[str, int]]:
        """Return the characters of `text` that are not here, each with its index."""
        if self.characters is None:
            return []
        return [(c, index) for index, c in enumerate(text) if c not in self._ids]

    def id_of(self, character: str, field_name: str) -> int:
        """Return one character's id; byte-level: of a byte, U+0000 to U+00FF.

        Raises:
            InvalidFieldError: it is no such character; names the field.
        """
        if len(character) != 1:
            raise InvalidFieldError(
                field_name, f"is {character[:MAX_SHOWN]!a}, of {len(character)} characters; allowed is one"
            )
        if self.characters is None:
            return _byte(character, field_name)
        try:
            return self._ids[character]
        except KeyError:
            raise UnknownCharacterError(field_name, [(character, 0)], 1) from None

    def symbol(self, index: int) -> str:
        """Return the character of one id; byte-level: U+0000 to U+00FF for the byte."""
        return chr(index) if self.characters is None else self.characters[index]

    def decoder(self, before: Sequence[int] = ()) -> Decoder:
        """Return a decoder for a stream of ids that arrives in pieces; `before` came before it and is not decoded."""
        return Decoder(self, before)


class Decoder:
    """Turns a stream of ids into pieces of valid text.

    A byte-level model's character belongs to the piece that its last byte is in: an unfinished one waits. Bytes that
    can never become one are U+FFFD. So pieces, joined, are the decoding of the whole, wherever it was cut.
    """

    def __init__(self, vocabulary: Vocabulary, before: Sequence[int]) -> None:
        self._characters = vocabulary.characters
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        if self._characters is None:
            self._utf8.decode(bytes(before[-MAX_UNFINISHED:]))  # leaves behind what is unfinished

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that is complete after `ids`."""
        if self._characters is None:
            return self._utf8.decode(bytes(ids))
        return "".join([self._characters[index] for index in ids])


def _byte(character: str, field_name: str) -> int:
    if ord(character) < NUM_BYTES:
        return ord(character)
    encoded = character.encode("utf-8", "backslashreplace")
    raise InvalidFieldError(
        field_name,
        f"holds {character!a}, but this model generates bytes: write each as a character of U+0000 to U+00FF "
        f"({character!a} is {encoded.decode('latin-1')!a})",
    )


def _utf8(text: str, field_name: str) -> list[int]:
    try:
        return list(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise UnknownCharacterError(field_name, [(text[error.start], error.start)], 1) from None
