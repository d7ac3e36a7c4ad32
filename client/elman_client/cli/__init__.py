"""The command line: ``elman``."""

import os

import click

from elman_client.cli._chat import chat
from elman_client.cli._explain import explain
from elman_client.cli._failures import Commands, Exit, run
from elman_client.cli._generate import generate
from elman_client.cli._models import models
from elman_client.cli._replay import replay
from elman_client.cli._score import score
from elman_client.cli._sessions import sessions
from elman_client.cli._top import top
from elman_client.cli._units import units
from elman_client.cli._watch import watch

__all__ = ["cli", "main"]


@click.group(
    cls=Commands,
    commands=[chat, explain, generate, models, replay, score, sessions, top, units, watch],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="elman", message="%(package)s %(version)s")
def cli() -> None:
    """Text from recurrent networks that an elman server runs.

    \b
    Exit codes:
      0    it worked
      1    the server refused, or failed
      2    wrong usage
      3    the server cannot be reached, or is too busy: try again
      4    there is no such session or model
      130  interrupted

    \b
    Example:
      elman generate "ROMEO:" --temperature 0.8 --max-chars 500

    \b
    Your shell completes commands, models and sessions after one of these:
      eval "$(_ELMAN_COMPLETE=bash_source elman)"      in ~/.bashrc
      eval "$(_ELMAN_COMPLETE=zsh_source elman)"       in ~/.zshrc
      _ELMAN_COMPLETE=fish_source elman | source       in config.fish
    """  # noqa: D301 - \b is click's sign for lines to keep as they are


def main() -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines would stand beside ours
    code = run(cli)
    if code == Exit.INTERRUPTED:  # a thread may be left in a call, with a lock that the interpreter's end needs
        os._exit(code)
    raise SystemExit(code)
