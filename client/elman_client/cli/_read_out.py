"""Text with the labels that a model reads off it: colours on a terminal, a table in a pipe, or JSON."""

from __future__ import annotations

import codecs
import math
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import click

from elman_client.cli._output import print_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import elman_client

_COLORS = ("red", "yellow", "green", "cyan", "magenta", "blue")  # of the labels in their order; then again
_BARS = "▁▂▃▄▅▆▇█"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class Character:
    """One character and the log-probabilities, in nats, of the labels after it."""

    text: str
    labels: dict[str, float]

    @property
    def likeliest(self) -> str:
        """The label with the highest probability; the first of equals."""
        return max(self.labels, key=lambda label: self.labels[label])

    def probability(self, label: str) -> float:
        """Return that of one label."""
        return math.exp(self.labels[label])


class View(Protocol):
    """Shows characters as they come."""

    def show(self, character: Character) -> None:
        """Show one more."""

    def end(self) -> None:
        """Show what is left."""


def choose_view(*, as_json: bool) -> View:
    """Return how standard output wants it."""
    if as_json:
        return _Json()
    is_colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return _Colors(shutil.get_terminal_size().columns) if is_colored else _Table()


def characters(details: Iterable[elman_client.CharacterDetail], *, byte_level: bool) -> Iterator[Character]:
    """Yield whole characters: of several bytes, the labels after the last one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for detail in details:
        text = decoder.decode(detail.text.encode("latin-1")) if byte_level else detail.text
        if text:
            yield Character(text, {label.label: label.log_probability for label in detail.labels})


class _Json:
    """One object a line."""

    def show(self, character: Character) -> None:
        print_json({"text": character.text, "labels": character.labels})

    def end(self) -> None:
        pass


class _Table:
    """Columns between tabs: the character, its likeliest label, and the probability of each."""

    def __init__(self) -> None:
        self._has_header = False

    def show(self, character: Character) -> None:
        if not self._has_header:
            click.echo("\t".join(["character", "label", *character.labels]))
            self._has_header = True
        text = "".join(_ESCAPES.get(c, c) for c in character.text)
        probabilities = (f"{character.probability(label):.4f}" for label in character.labels)
        click.echo("\t".join([text, character.likeliest, *probabilities]))

    def end(self) -> None:
        pass


class _Colors:
    """Lines of text in the colours of their labels, above bars that show how sure each is."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._line: list[Character] = []
        self._last: Character | None = None

    def show(self, character: Character) -> None:
        if self._last is None:
            click.echo("  ".join(_colored(f"■ {label}", character, label) for label in character.labels))
        self._last = character
        if character.text != "\n":
            self._line.append(character)
        if character.text == "\n" or len(self._line) == self._width:
            self._print_line()

    def end(self) -> None:
        self._print_line()
        if self._last is not None:
            last = self._last
            parts = (f"{label} {last.probability(label):.1%}" for label in last.labels)
            click.echo(f"in the end: {', '.join(parts)}")

    def _print_line(self) -> None:
        line, self._line = self._line, []
        if not line:
            return
        click.echo("".join(_colored(c.text if c.text.isprintable() else "·", c, c.likeliest) for c in line))
        bars = (_BARS[min(int(c.probability(c.likeliest) * len(_BARS)), len(_BARS) - 1)] for c in line)
        click.echo("".join(_colored(bar, c, c.likeliest) for bar, c in zip(bars, line, strict=True)))


def _colored(text: str, character: Character, label: str) -> str:
    return click.style(text, fg=_COLORS[list(character.labels).index(label) % len(_COLORS)])
