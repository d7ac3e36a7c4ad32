"""How a command fails: one line that says what to do next, and a code for scripts."""

import os
import sys
from enum import IntEnum

import click

import elman_client
from elman_client.cli._explanations import explain
from elman_client.cli._streams import open_streams, silence


class Exit(IntEnum):
    """The exit codes of ``elman``."""

    OK = 0
    ERROR = 1  # the server refused, or failed
    USAGE = 2
    UNAVAILABLE = 3  # cannot be reached, or too busy: try again
    NOT_FOUND = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Commands(click.Group):
    """A group that shows its help when nothing else is asked of it, and may lose its reader."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader that has had enough is no error, as in `elman generate … | head`."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return Exit.OK


def run(command: click.Command) -> int:
    """Run ``command`` on the process's arguments and return the exit code."""
    try:
        open_streams()
        code: int = command.main(standalone_mode=False) or Exit.OK
        sys.stdout.flush()  # here a full disk is still an error like others
    except BrokenPipeError:
        code = Exit.OK
    except (click.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except (elman_client.ElmanError, click.ClickException, OSError) as error:
        complain(explain(error))
        code = exit_code(error)
    silence()
    return code


def complain(message: str) -> None:
    """Print one line of an error on standard error."""
    _say(message, "red")


def note(message: str) -> None:
    """Print one line on standard error; it is not an error."""
    _say(message, "yellow")


def hint(message: str, color: str = "cyan") -> None:
    """Print on standard error what is not the text of a model."""
    _echo(click.style(message, fg=color))


def is_colored() -> bool:
    """Whether a terminal is to show colours."""
    return not os.environ.get("NO_COLOR")


def _say(message: str, color: str) -> None:
    _echo(f"{click.style('elman:', fg=color)} {' '.join(message.split())}")


def _echo(line: str) -> None:
    click.echo(line, err=True, color=None if is_colored() else False)  # None: on a terminal


def exit_code(error: Exception) -> Exit:
    """Return the code for an error."""
    if isinstance(error, click.ClickException):
        return Exit.USAGE
    if isinstance(error, elman_client.UnavailableError):
        return Exit.UNAVAILABLE
    if isinstance(error, elman_client.NotFoundError):
        return Exit.NOT_FOUND
    return Exit.ERROR
