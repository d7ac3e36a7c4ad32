"""The command `elman-server`: settings from flags and variables, then serve until told to stop."""

from __future__ import annotations

import os
import sys
from typing import TypeVar

import click
import uvloop

from elman_server.app import serve
from elman_server.domain.errors import ServerError
from elman_server.process.logs import set_up_logs
from elman_server.process.settings import RULES, Rule, flag, load, to_toml, variable

_Command = TypeVar("_Command", bound=click.Command)


def _with_settings(command: _Command) -> _Command:
    command.params = [_option(name, rule) for name, rule in RULES.items()] + command.params
    return command


def _option(name: str, rule: Rule) -> click.Option:
    allowed = f" [{' '.join(filter(None, (rule.allowed, rule.unit)))}]" if rule.allowed else ""
    # Plain text: `load` parses flags and variables alike, with the same errors.
    return click.Option([flag(name)], type=str, metavar="VALUE", help=f"{rule.line}{allowed} ({variable(name)})")


@_with_settings
@click.command(
    epilog="""\b
Examples:
  elman-server
  elman-server --listen 0.0.0.0:50051 --models ./models --log-format json
  ELMAN_MAX_BATCH=64 elman-server --print-config

Every setting is a variable too (in brackets); the flag wins. docs/settings.md tells the defaults.
The first SIGTERM or SIGINT drains, the second ends at once."""
)
@click.option("--print-config", is_flag=True, help="Print the effective settings as TOML and exit.")
@click.version_option(package_name="elman")
def main(*, print_config: bool, **flags: str | None) -> None:
    """Serve recurrent text models over gRPC."""
    try:
        settings = load(flags, os.environ)
        if print_config:
            click.echo(to_toml(settings), nl=False)
            return
        set_up_logs(settings.log_format, settings.log_level)
        uvloop.run(serve(settings))
    except ServerError as error:
        click.echo(f"elman-server: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
