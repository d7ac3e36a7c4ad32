"""``elman watch``."""

from __future__ import annotations

import math
import shutil
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

from elman_client.cli._colors import Painter, choose_painter, signed
from elman_client.cli._completion import complete_model, complete_session
from elman_client.cli._inspected import Inspected, checked
from elman_client.cli._output import print_json
from elman_client.cli._remote import Remote, remote_options
from elman_client.cli._texts import plain, text_options
from elman_client.cli._units import unit_name, units_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import elman_client

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_MAX_UNITS = 64  # rows that a terminal shows


@click.command()
@click.argument("session", required=False, shell_complete=complete_session)
@click.option("--text", metavar="TEXT", help="Read this after SESSION, or from the beginning of --model.")
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="The model that reads --text.")
@click.option(
    "--unit",
    "units",
    multiple=True,
    required=True,
    metavar="NAME",
    help="What to watch: c1.236, or h0 for a whole layer; h, c, or a gate such as forget1.7. May be repeated.",
)
@click.option("--start", type=int, default=0, metavar="N", help="The first position to show.")
@click.option("--end", type=int, metavar="N", help="One past the last one.")
@text_options
@remote_options
def watch(
    remote: Remote,
    session: str | None,
    *,
    text: str | None,
    model: str | None,
    units: tuple[str, ...],
    plain_quotes: bool,
    **options: Any,
) -> None:
    """Show what units do while the network reads a text. It reads the transcript of SESSION again, or --text.

    \b
    On a terminal one unit colours the text, blue for -1 and red for +1;
    several are rows of cells below it. c is shown as tanh c. In a pipe: columns
    between tabs. With --json one object a character. `elman units` finds units.

    \b
    Examples:
      elman watch my-session --unit c1.236
      elman watch --text "To be, or not to be" --unit h0 --model elman-128
    """  # noqa: D301 - \\b is click's sign for lines to keep as they are
    checked(model, session, text, "--text")
    chosen = [units_of(name) for name in units]
    with remote.connect() as client:
        source = Inspected(client, model, session)
        if text is not None and plain_quotes:
            text = plain(text, source.model())
        chunks = source.watch(text, units=chosen, **options)
        rows = remote.interrupts.until(_rows(chunks))
        painter = choose_painter()
        if remote.as_json:
            for position, character, values in rows:
                print_json({"position": position, "text": character, "units": values})
        elif painter is None:
            _print_table(rows)
        else:
            _Picture(painter, shutil.get_terminal_size().columns).print(rows)


def _rows(chunks: Iterable[elman_client.StateChunk]) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield each character with its position, and the value of each unit by name."""
    for chunk in chunks:
        names = [unit_name(part.signal, part.layer, unit) for part in chunk.values for unit in part.units]
        tables = [part.values.to_lists() for part in chunk.values]
        for index, character in enumerate(chunk.text):
            values = [value for table in tables for value in table[index]]
            yield chunk.start + index, character, dict(zip(names, values, strict=True))


def _print_table(rows: Iterable[tuple[int, str, dict[str, float]]]) -> None:
    for index, (position, character, values) in enumerate(rows):
        if not index:
            click.echo("\t".join(["position", "character", *values]))
        shown = _ESCAPES.get(character, character)
        click.echo("\t".join([str(position), shown, *(f"{value:.6g}" for value in values.values())]))


class _Picture:
    """Lines of text; one unit is the colour of the text, several are rows of half blocks below it."""

    def __init__(self, painter: Painter, width: int) -> None:
        self._painter = painter
        self._width = width
        self._line: list[tuple[str, list[float]]] = []

    def print(self, rows: Iterable[tuple[int, str, dict[str, float]]]) -> None:
        for _, character, values in rows:
            shown = [math.tanh(v) if name.startswith("c") and name[1].isdigit() else v for name, v in values.items()]
            self._line.append((character if character.isprintable() else " ", shown[:_MAX_UNITS]))
            if character == "\n" or len(self._line) == self._width:
                self._print_line()
        self._print_line()

    def _print_line(self) -> None:
        line, self._line = self._line, []
        if not line:
            return
        if len(line[0][1]) == 1:
            click.echo("".join(self._painter.on(character, signed(values[0])) for character, values in line))
            return
        click.echo("".join(character for character, _ in line))
        units = list(zip(*(values for _, values in line), strict=True))
        for upper, lower in zip_longest(units[::2], units[1::2]):
            click.echo("".join(self._cells(upper, lower)))

    def _cells(self, upper: tuple[float, ...], lower: tuple[float, ...] | None) -> Iterator[str]:
        for index, value in enumerate(upper):
            below = None if lower is None else signed(lower[index])
            yield self._painter.half_blocks(signed(value), below)
