"""The options of commands that draw text."""

from collections.abc import Callable
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., int | None])

# Ranges are the server's word: it knows them, and says which field is wrong.
_OPTIONS = (
    click.option("--temperature", type=float, help="Divides the logits; 0 takes the likeliest."),
    click.option("--top-k", type=int, metavar="K", help="Keep the K likeliest."),
    click.option("--top-p", type=float, metavar="P", help="Keep the likeliest that sum to P."),
    click.option("--min-p", type=float, metavar="P", help="Keep those P times as likely as the likeliest."),
    click.option("--repetition-penalty", type=float, metavar="X", help="Make recent characters less likely."),
    click.option("--seed", type=int, help="Equal seeds give equal text."),
    click.option("--max-chars", type=int, metavar="N", help="Draw N characters at most."),
    click.option("--stop", "stop_strings", multiple=True, metavar="TEXT", help="End at this text. May be repeated."),
    click.option("--include-stop", is_flag=True, help="Keep the stop text."),
)


def sampling_options(command: _Command) -> _Command:
    """Give ``command`` the options that say how text is drawn."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
