"""``elman generate``."""

from __future__ import annotations

import sys
import time
from typing import Unpack

import click

import elman_client
from elman_client.cli._output import print_event
from elman_client.cli._remote import Remote, choose_model, remote_options
from elman_client.cli._sampling import sampling_options


@click.command()
@click.argument("prompt")
@click.option("--model", metavar="NAME", help="Draw from a model's beginning.")
@click.option("--session", metavar="NAME", help="Go on with a session, and keep what is drawn.")
@sampling_options
@click.option(
    "--detail",
    "top_n",
    type=int,
    metavar="N",
    help="With --json: each character's log-probability and the N likeliest.",
)
@click.option("--no-echo", is_flag=True, help="Do not print the prompt.")
@click.option("--stats", is_flag=True, help="Print the speed on standard error.")
@remote_options
def generate(
    remote: Remote,
    prompt: str,
    *,
    model: str | None,
    session: str | None,
    no_echo: bool,
    stats: bool,
    **options: Unpack[elman_client.GenerateOptions],
) -> None:
    """Print PROMPT and the text that follows it, as it is drawn. "-" reads standard input.

    \b
    Examples:
      elman generate "ROMEO:" --temperature 0.8 --max-chars 500 --seed 7
      echo -n "To be" | elman generate - --stop . --include-stop --stats
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    if model and session:
        raise click.UsageError("--model and --session exclude each other")
    if options["top_n"] is not None:
        if not remote.as_json:
            raise click.UsageError("--detail needs --json")
        options["log_probability"] = True
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode(errors="replace")
    with remote.connect() as client:
        turn = (
            client.session(session).generate(prompt, **options)
            if session
            else client.generate(prompt, model=choose_model(client, model).name, **options)
        )
        start = time.perf_counter()
        with turn:
            if remote.as_json:
                _print_events(turn)
            else:
                _print_text("" if no_echo else prompt, turn)
        if stats:
            _print_stats(turn.finished, time.perf_counter() - start)


def _print_events(turn: elman_client.Generation) -> None:
    for event in turn.events():
        print_event(event)


def _print_text(prompt: str, turn: elman_client.Generation) -> None:
    for event in turn.events():
        if isinstance(event, elman_client.Started):  # the server has taken the prompt
            click.echo(prompt, nl=False)
        elif isinstance(event, elman_client.Chunk):
            click.echo(event.text, nl=False)  # flushes
    if sys.stdout.isatty():
        click.echo()


def _print_stats(finished: elman_client.Finished, seconds: float) -> None:
    drawn = finished.usage.generated_chars
    click.echo(
        f"{drawn} characters, {drawn / seconds:.0f} characters per second, ended by {finished.finish_reason}",
        err=True,
    )
