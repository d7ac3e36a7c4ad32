"""``elman score``."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, BinaryIO

import click

from elman_client.cli._completion import complete_model, complete_read_out
from elman_client.cli._output import print_json
from elman_client.cli._read_out import characters, choose_view
from elman_client.cli._remote import Remote, choose_model, remote_options
from elman_client.cli._texts import Cleaner, decode, text_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    import elman_client

_MAX_PIECE = 10_000  # characters: small enough for the progress bar to move
_MAX_CANDIDATES = 100_000  # of one answer; the server's limit is above that
_MAX_BYTES_PER_CHARACTER = 4  # of UTF-8


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="The model that judges.")
@click.option(
    "--read-out",
    metavar="NAME",
    shell_complete=complete_read_out,
    help="Show the text with the labels of one of the model's read-outs.",
)
@text_options
@remote_options
def score(
    remote: Remote,
    file: BinaryIO,
    *,
    model: str | None,
    read_out: str | None,
    plain_quotes: bool,
    unknown_characters: elman_client.UnknownPolicy | None,
) -> None:
    """Print how well a model predicts the text of FILE. "-" reads standard input.

    \b
    With --json also every character's log-probability, one object a line.
    The first character has none: nothing came before it.

    With --read-out, or with a model that reports labels, the text is shown with its labels: in colours
    on a terminal, as columns between tabs in a pipe.

    \b
    Examples:
      elman score hamlet.txt
      echo -n "The movie was terribly good!" | elman score - --read-out sentiment
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    text = decode(file.read(), file.name)
    with remote.connect() as client:
        judge = choose_model(client, model)
        text = Cleaner(file.name, lambda: judge, plain_quotes=plain_quotes).clean(text)
        if not text:
            raise click.UsageError(f"{file.name} is empty: there is nothing to score")
        with remote.interrupts.stopping(lambda: None), _temporary_session(client, judge) as session:
            if read_out or judge.labels:
                _show_labels(remote, session, text, judge, read_out=read_out or "", unknown=unknown_characters)
            else:
                _show_score(remote, session, text, judge, unknown=unknown_characters)


def _show_labels(
    remote: Remote,
    session: elman_client.Session,
    text: str,
    judge: elman_client.Model,
    *,
    read_out: str,
    unknown: elman_client.UnknownPolicy | None,
) -> None:
    view = choose_view(as_json=remote.as_json)
    labels = next((known.labels for known in judge.read_outs if known.name == read_out), judge.labels)
    for piece in remote.interrupts.until(cut(text, judge, len(labels))):
        details = session.score(piece, read_out=read_out, unknown_characters=unknown).details
        for character in characters(details, byte_level=judge.byte_level):
            view.show(character)
        session.append(piece, unknown_characters=unknown)
    view.end()


def _show_score(
    remote: Remote,
    session: elman_client.Session,
    text: str,
    judge: elman_client.Model,
    *,
    unknown: elman_client.UnknownPolicy | None,
) -> None:
    scored = []
    with _progress(cut(text, judge)) as pieces:
        for piece in remote.interrupts.until(pieces):
            details = session.append(piece, log_probability=True, unknown_characters=unknown).details
            scored += [d.log_probability for d in details if d.log_probability is not None]
            if remote.as_json:
                _print_characters(details)
    if not remote.interrupts.is_interrupted:
        _print_summary(remote, len(scored), -math.fsum(scored))


def cut(text: str, model: elman_client.Model, num_labels: int = 0) -> list[str]:
    """Return the text in pieces that the server accepts."""
    size = min(_MAX_PIECE, model.limits.max_prompt_chars, max(1, _MAX_CANDIDATES // (1 + num_labels)))
    if model.byte_level:
        size = max(1, size // _MAX_BYTES_PER_CHARACTER)
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
