"""Text that a command reads, wherever it comes from: line ends of Windows, a byte order mark, curly quotes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click

from elman_client.cli._failures import note
from elman_client.cli._values import unknown_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    import elman_client

_Command = TypeVar("_Command", bound="Callable[..., int | None]")

_MARK: Final = "\ufeff"
# What stands for a character of typesetters: the first that the model has.
_PLAIN: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys("‘’‚‛′", ("'",)),  # noqa: RUF001 - these are what is replaced
    **dict.fromkeys("“”„‟″«»", ('"', "'")),
    **dict.fromkeys("‐‑‒–—―−", ("-",)),  # noqa: RUF001
    "…": ("...",),
    "\u00a0": (" ",),
}


def text_options(command: _Command) -> _Command:
    """Give ``command`` the options of commands that read text."""
    plain = click.option(
        "--plain-quotes", is_flag=True, help="Read curly quotes, long dashes and … as \", ', - and ..."
    )
    unknown = click.option(
        "--unknown",
        "unknown_characters",
        type=unknown_policy,
        metavar="skip|replace=X|reject",
        help="Characters that the model does not have: leave them out, read X instead, or fail. [default: reject]",
    )
    return unknown(plain(command))


def decode(data: bytes, name: str) -> str:
    """Return what a file says.

    Raises:
        UsageError: It is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8 at byte {error.start}: convert it first, as with `iconv -t UTF-8`"
        raise click.UsageError(message) from error


class Cleaner:
    """Makes the text of a file what a model reads; a note says once what was changed without being asked for.

    Args:
        name: The file's.
        model: Returns the model that reads it.
        plain_quotes: Replace curly quotes and long dashes as well.
    """

    def __init__(self, name: str, model: Callable[[], elman_client.Model], *, plain_quotes: bool = False) -> None:
        self._name = name
        self._model = model
        self._plain_quotes = plain_quotes
        self._keeps_returns: bool | None = None

    def clean(self, text: str) -> str:
        """Return the text, or its next piece."""
        if text.startswith(_MARK):
            note(f"{self._name}: the byte order mark at the beginning is left out")
            text = text.removeprefix(_MARK)
        if "\r\n" in text and not self._is_for_returns():
            text = text.replace("\r\n", "\n")
        return plain(text, self._model()) if self._plain_quotes else text

    def _is_for_returns(self) -> bool:
        """Whether the model knows carriage returns."""
        if self._keeps_returns is None:
            self._keeps_returns = _has(self._model(), "\r")
            if not self._keeps_returns:
                note(f"{self._name}: CRLF line ends are read as LF")
        return self._keeps_returns


def plain(text: str, model: elman_client.Model) -> str:
    """Return the text with quotes and dashes that the model has."""
    return "".join(_plain_character(character, model) for character in text)


def _plain_character(character: str, model: elman_client.Model) -> str:
    known = (choice for choice in _PLAIN.get(character, ()) if _has(model, choice[0]))
    return next(known, character)


def _has(model: elman_client.Model, character: str) -> bool:
    return model.byte_level or character in model.vocabulary
