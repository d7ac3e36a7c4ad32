"""The options of commands that generate text."""

from collections.abc import Callable
from typing import Final, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., int | None])

TEMPERATURE: Final = 0.8
MAX_CHARS: Final = 500  # a screen

# Ranges are the server's to know: it reports which value is wrong, and what is allowed.
_OPTIONS = (
    click.option(
        "--temperature",
        type=float,
        default=TEMPERATURE,
        show_default=True,
        help="Divides the logits: lower is safer, 0 takes the likeliest.",
    ),
    click.option("--top-k", type=int, metavar="K", help="Keep the K likeliest."),
    click.option("--top-p", type=float, metavar="P", help="Keep the likeliest that sum to P."),
    click.option("--min-p", type=float, metavar="P", help="Keep those P times as likely as the likeliest."),
    click.option("--repetition-penalty", type=float, metavar="X", help="Make recent characters less likely."),
    click.option("--seed", type=int, help="Equal seeds give equal text."),
    click.option(
        "--max-chars",
        type=click.IntRange(min=1),
        default=MAX_CHARS,
        show_default=True,
        metavar="N",
        help="Generate N characters at most.",
    ),
    click.option(
        "--stop",
        "stop_strings",
        multiple=True,
        metavar="TEXT",
        help="End at this text; $'\\n' is a line break. May be repeated.",
    ),
    click.option("--include-stop", is_flag=True, help="Keep the stop text."),
)


def sampling_options(command: _Command) -> _Command:
    """Give ``command`` the options that say how text is generated."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
