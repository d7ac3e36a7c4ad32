"""Values of options: durations, labels, what to do with unknown characters."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

import elman_client

if TYPE_CHECKING:
    from elman_client import UnknownPolicy

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(value: str) -> timedelta:
    """Return the time that ``90``, ``90s``, ``15m``, ``2h`` or ``7d`` means."""
    match = _DURATION.fullmatch(value)
    if not match:
        raise click.BadParameter(f"{value!r} is no duration: write 90s, 15m, 2h or 7d")
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


def key_and_value(value: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``."""
    key, equals, text = value.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{value!r} is no label: write KEY=VALUE")
    return key, text


def unknown_policy(value: str) -> UnknownPolicy:
    """Return the client's policy for ``skip``, ``reject`` or ``replace=X``."""
    word, equals, character = value.partition("=")
    match word, equals, len(character):
        case "skip", "", 0:
            return "skip"
        case "reject", "", 0:
            return "reject"
        case "replace", "=", 1:
            return elman_client.ReplaceWith(character)
    raise click.BadParameter(f"{value!r} is neither skip, reject nor replace=? with any one character")
