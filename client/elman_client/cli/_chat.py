"""``elman chat``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Unpack

import click

import elman_client
from elman_client.cli._conversation import Conversation
from elman_client.cli._failures import complain, explain
from elman_client.cli._remote import Remote, choose_model, remote_options
from elman_client.cli._sampling import sampling_options

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
@click.option("--model", metavar="NAME", help="The model of a new session.")
@click.option("--session", metavar="NAME", help="Go on with a session.")
@click.option("--initial-state", metavar="NAME", help="What a new session starts from; `elman models` lists them.")
@sampling_options
@remote_options
def chat(
    remote: Remote,
    *,
    model: str | None,
    session: str | None,
    initial_state: str | None,
    **options: Unpack[elman_client.GenerateOptions],
) -> None:
    """Talk with a model: it goes on from each line, and remembers them all.

    Ctrl-C stops an answer and keeps what was drawn, Ctrl-D leaves, /help lists the commands.
    An answer ends at an empty line or after 500 characters, unless --stop or --max-chars say else.

    \b
    Examples:
      elman chat --temperature 0.8
      echo "ROMEO:" | elman chat --seed 7 --max-chars 200
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    if session and (model or initial_state):
        raise click.UsageError(f"{'--model' if model else '--initial-state'} and --session exclude each other")
    is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with remote.connect() as client:
        if session:
            at = client.get_session(session)
        else:
            at = client.create_session(choose_model(client, model).name, initial_state=initial_state)
        conversation = Conversation(client, at, options, as_json=remote.as_json)
        for line in _typed_lines() if is_interactive else _piped_lines():
            try:
                conversation.take(line)
            except (elman_client.ElmanError, click.ClickException, OSError) as error:
                if not is_interactive:
                    raise
                complain(explain(error))
    if is_interactive:
        click.echo(f"The session stays: elman chat --session {conversation.name}", err=True)


def _typed_lines() -> Iterator[str]:
    from prompt_toolkit import PromptSession  # noqa: PLC0415 - takes a fifth of a second
    from prompt_toolkit.history import InMemoryHistory  # noqa: PLC0415

    prompt: PromptSession[str] = PromptSession(history=InMemoryHistory())
    while True:
        try:
            yield prompt.prompt("> ")
        except KeyboardInterrupt:
            click.echo("Ctrl-D leaves.", err=True)
        except EOFError:
            return


def _piped_lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        yield line.decode(errors="replace").removesuffix("\n")
