"""The command `elman-server`: settings from flags and variables, then serve until a signal."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

# A server outlives the terminal that it was started from: while it loads, too.
signal.signal(signal.SIGHUP, signal.SIG_IGN)

try:
    import structlog
    import uvloop

    from elman_server.app import serve
    from elman_server.domain.errors import ServerError
    from elman_server.process.logs import log_uncaught, set_up_logs
    from elman_server.process.settings import RULES, Rule, flag, load, to_toml, unknown_variables, variable
    from elman_server.sessions.stores.backup import back_up, restore
except ModuleNotFoundError as error:  # the client alone was installed
    if (error.name or "").startswith("elman"):
        raise
    missing = (error.name or "a library").partition(".")[0]
    sys.exit(f"elman-server: {missing} is not installed; run: pip install 'elman[server]'")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elman_server.process.settings import Settings

_LAST_LINES_SECONDS: Final = 1.0  # the longest wait for a reader of the log
log = structlog.get_logger(__name__)

_Command = TypeVar("_Command", bound=click.Command)


def _with_settings(command: _Command) -> _Command:
    command.params = [_option(name, rule) for name, rule in RULES.items()] + command.params
    return command


def _option(name: str, rule: Rule) -> click.Option:
    allowed = f" [{' '.join(filter(None, (rule.allowed, rule.unit)))}]" if rule.allowed else ""
    # Plain text: `load` parses flags and variables alike, with the same errors.
    return click.Option([flag(name)], type=str, metavar="VALUE", help=f"{rule.line}{allowed} ({variable(name)})")


@_with_settings
@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  elman-server
  elman-server --models ./models --log-format json
  elman-server --listen 0.0.0.0:50051 --tls-certificate server.pem --tls-key server.key --access access.toml
  ELMAN_MAX_BATCH=64 elman-server --print-config
  elman-server --store sqlite:sessions.db backup copy.db

Every setting is a variable too (in brackets); the flag wins. docs/settings.md lists the defaults.
The first SIGTERM or SIGINT drains, the second ends at once.""",
)
@click.option("--print-config", is_flag=True, help="Print the effective settings as TOML and exit.")
@click.version_option(package_name="elman")
@click.pass_context
def main(context: click.Context, /, *, print_config: bool, **flags: str | None) -> None:
    """Serve recurrent text models over gRPC; or copy a server's sessions."""
    with _refusing():
        settings = load(flags, os.environ)
        if context.invoked_subcommand is not None:
            context.obj = settings
            return
        writer = set_up_logs(settings.log_format, settings.log_level)
        log_uncaught(writer)
        try:
            _run(settings, print_config=print_config)
        finally:
            writer.drain(_LAST_LINES_SECONDS)


@main.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def back_up_sessions(settings: Settings, file: Path) -> None:
    """Copy the sessions of --store to FILE. A server may use them meanwhile.

    The key of snapshots is copied beside it, if it lies beside the store; those of --store-keys are not.
    """
    with _refusing():
        click.echo(f"{back_up(settings.store, file)} sessions are in {file}")


@main.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def restore_sessions(settings: Settings, file: Path) -> None:
    """Put a copy in the place of --store, which must not exist."""
    with _refusing():
        click.echo(f"{restore(file, settings.store)} sessions are in {settings.store}")


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn an error of ours into a sentence and exit status 1."""
    try:
        yield
    except ServerError as error:
        click.echo(f"elman-server: {error}", err=True)
        sys.exit(1)


def _run(settings: Settings, *, print_config: bool) -> None:
    for name, hint in unknown_variables(os.environ).items():
        log.warning("unknown_variable", variable=name, hint=hint)
    if print_config:
        click.echo(to_toml(settings), nl=False)
    else:
        uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
