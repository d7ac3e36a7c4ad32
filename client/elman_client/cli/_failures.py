"""How a command fails: one line that says what to do next, and a code for scripts."""

import os
import sys
from enum import IntEnum

import click

import elman_client


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
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader has had enough, as in `elman generate … | head`. Whatever is left to
            # flush at exit goes nowhere, quietly.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.OK


def run(command: click.Command) -> int:
    """Run ``command`` on the process's arguments and return the exit code."""
    try:
        return command.main(standalone_mode=False) or Exit.OK
    except click.Abort:
        return Exit.INTERRUPTED
    except click.UsageError as error:
        usage = f" See `{error.ctx.command_path} --help`." if error.ctx else ""
        complain(f"{error.format_message().rstrip('.')}.{usage}")
        return Exit.USAGE
    except (elman_client.ElmanError, click.ClickException, OSError) as error:
        complain(explain(error))
        return exit_code(error)


def complain(message: str) -> None:
    """Print one line on standard error."""
    line = " ".join(message.split())
    color = False if os.environ.get("NO_COLOR") else None  # None: on a terminal
    click.echo(f"{click.style('elman:', fg='red')} {line}", err=True, color=color)


def exit_code(error: Exception) -> Exit:
    """Return the code for an error."""
    if isinstance(error, click.ClickException):
        return Exit.USAGE
    if isinstance(error, elman_client.UnavailableError):
        return Exit.UNAVAILABLE
    if isinstance(error, elman_client.NotFoundError):
        return Exit.NOT_FOUND
    return Exit.ERROR


def explain(error: Exception) -> str:
    """Return what happened and what to do next."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, elman_client.UnavailableError) and not error.reason:
        target = error.message.split(": ", 1)[0]
        return f"cannot reach {target}: is elman-server running? start it with `make serve`"
    if isinstance(error, elman_client.InternalError):
        return f"{error} (request {error.request_id})"
    return str(error)
