"""``elman score``."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, BinaryIO

import click

from elman_client.cli._output import print_json
from elman_client.cli._remote import Remote, choose_model, remote_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    import elman_client

_MAX_PIECE = 10_000  # characters: small enough for the progress bar to move
_MAX_BYTES_PER_CHARACTER = 4  # of UTF-8


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--model", metavar="NAME", help="The model that judges.")
@remote_options
def score(remote: Remote, file: BinaryIO, model: str | None) -> None:
    """Print how well a model foresees the text of FILE. "-" reads standard input.

    \b
    With --json also every character's log-probability, one object a line.
    The first character has none: nothing came before it.

    \b
    Example:
      elman score hamlet.txt
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    text = _read(file)
    scored = []
    with remote.connect() as client:
        judge = choose_model(client, model)
        with _temporary_session(client, judge) as session, _progress(_cut(text, judge)) as pieces:
            for piece in pieces:
                details = session.append(piece, log_probability=True).details
                scored += [d.log_probability for d in details if d.log_probability is not None]
                if remote.as_json:
                    _print_characters(details)
    _print_summary(remote, len(scored), -math.fsum(scored))


def _read(file: BinaryIO) -> str:
    try:
        text = file.read().decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file.name} is not UTF-8: {error}") from error
    if not text:
        raise click.UsageError(f"{file.name} is empty: there is nothing to score")
    return text


def _cut(text: str, model: elman_client.Model) -> list[str]:
    """Return the text in pieces that the server takes."""
    size = min(_MAX_PIECE, model.limits.max_prompt_chars)
    if model.byte_level:
        size //= _MAX_BYTES_PER_CHARACTER
    return [text[start : start + size] for start in range(0, len(text), size)]


@contextmanager
def _temporary_session(client: elman_client.Client, model: elman_client.Model) -> Iterator[elman_client.Session]:
    session = client.create_session(model.name)
    try:
        yield session
    finally:
        session.delete()


def _progress(pieces: list[str]) -> AbstractContextManager[Iterable[str]]:
    if sys.stderr.isatty():
        return click.progressbar(pieces, label="scoring", file=sys.stderr)
    return nullcontext(pieces)


def _print_characters(details: Iterable[elman_client.CharacterDetail]) -> None:
    for detail in details:
        print_json({"text": detail.text, "log_probability": detail.log_probability})


def _print_summary(remote: Remote, num_scored: int, nats: float) -> None:
    per_character = nats / num_scored if num_scored else None
    bits = None if per_character is None else per_character / math.log(2)
    if remote.as_json:
        print_json(
            {
                "num_scored": num_scored,
                "nats_per_character": per_character,
                "bits_per_character": bits,
            }
        )
    elif bits is None:
        click.echo("0 characters scored: the first has nothing before it")
    else:
        click.echo(
            f"{per_character:.4f} nats per character, {bits:.4f} bits per character, {num_scored} characters scored"
        )
