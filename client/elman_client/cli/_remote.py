"""Which server a command talks to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

import elman_client

if TYPE_CHECKING:
    from collections.abc import Callable

_FAVOURITE = "models/shakespeare"


@dataclass(frozen=True)
class Remote:
    """The options that every command has.

    Attributes:
        target: Where the server listens.
        timeout: Seconds for each call; ``None``: no deadline.
        as_json: Print one JSON object a line.
    """

    target: str
    timeout: float | None
    as_json: bool

    def connect(self) -> elman_client.Client:
        """Return a client; nothing is sent yet."""
        return elman_client.Client(self.target, timeout=self.timeout)


def remote_options(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give ``command`` the options of every command, as its first argument."""

    @click.option(
        "--target",
        envvar="ELMAN_TARGET",
        default="127.0.0.1:50051",
        metavar="HOST:PORT",
        show_default=True,
        show_envvar=True,
        help="Where the server listens.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Give up on a call after this time.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
    @wraps(command)
    def wrapped(*args: Any, target: str, timeout: float | None, as_json: bool, **options: Any) -> int | None:
        return command(Remote(target, timeout, as_json), *args, **options)

    return wrapped


def choose_model(client: elman_client.Client, name: str | None) -> elman_client.Model:
    """Return the named model; without a name ``shakespeare``, or the only one there is."""
    if name is not None:
        return client.get_model(name)
    models = client.list_models()
    for model in models:
        if model.name == _FAVOURITE or len(models) == 1:
            return model
    names = ", ".join(model.name.removeprefix("models/") for model in models)
    raise click.UsageError(f"Say which --model: the server has {names or 'none'}.")
