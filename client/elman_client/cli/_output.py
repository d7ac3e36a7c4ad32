"""What commands print."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import elman_client


def print_json(value: object) -> None:
    """Print one JSON object on one line."""
    click.echo(json.dumps(value, default=_plain))


def print_event(event: "elman_client.Event") -> None:
    """Print one event of a turn as JSON, with its kind."""
    print_json({"event": type(event).__name__.lower(), **_plain(event)})


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print left-aligned columns under a header."""
    lines = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def printable(value: object) -> str:
    """Return text that moves no cursor and changes no color: labels and names are other people's."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(value))


def local_time(moment: datetime) -> str:
    """Return a moment as people here read it."""
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")


def _plain(value: object) -> Any:
    """Return what JSON can say of a value of the client's."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"no JSON for {type(value).__name__}")
