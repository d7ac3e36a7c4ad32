"""Which server a command calls."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import elman_client
from elman_client.cli._failures import note
from elman_client.cli._interrupts import Interrupts
from elman_client.cli._streams import Output

if TYPE_CHECKING:
    from collections.abc import Callable

_FAVOURITE = "models/shakespeare"
SECURITY = ("tls", "ca", "cert", "key", "token_file")
_SCHEMES = {"http", "https", "grpc", "grpcs", "tcp"}


@dataclass(frozen=True)
class Security:
    """How the connection is protected, and who calls.

    Attributes:
        tls: Encrypt, and check the server's certificate.
        ca: PEM file to check it against.
        cert, key: PEM files of the caller's own.
        token_file: Holds the caller's token; without it the variable ELMAN_TOKEN does.
    """

    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token_file: str | None = None

    def token(self) -> str | None:
        """Return the token, if there is one."""
        if self.token_file is None:
            return os.environ.get("ELMAN_TOKEN") or None
        return Path(self.token_file).read_text("ascii", "replace").strip()


@dataclass(frozen=True)
class Remote:
    """The options that every command has.

    Attributes:
        target: Where the server listens.
        timeout: Seconds for each call; ``None``: no deadline.
        as_json: Print one JSON object a line.
        security: How the connection is protected, and who calls.
        interrupts: What Ctrl-C does.
        output: Where generated text goes.
    """

    target: str
    timeout: float | None
    as_json: bool
    security: Security = field(default_factory=Security)
    interrupts: Interrupts = field(default_factory=Interrupts)
    output: Output = field(default_factory=Output)

    def connect(self) -> elman_client.Client:
        """Return a client; nothing is sent yet."""
        logger = logging.getLogger("elman_client")
        logger.setLevel(logging.INFO)
        logger.handlers = [_Notes(self.output)]
        return client_of(self.target, self.security, timeout=self.timeout)


def client_of(target: str, security: Security, *, timeout: float | None, **options: Any) -> elman_client.Client:
    """Return a client; raises UsageError for options that contradict one another."""
    try:
        return elman_client.Client(
            target,
            tls=security.tls or bool(security.ca or security.cert),
            root_certificates=security.ca,
            certificate=security.cert,
            key=security.key,
            token=security.token(),
            timeout=timeout,
            **options,
        )
    except ValueError as error:
        raise click.UsageError(_in_flags(str(error))) from error


def _in_flags(sentence: str) -> str:
    """Return what the client says of its arguments in the words of the command line."""
    words = {"root_certificates": "--ca", "tls=True": "--tls", "certificate and key": "--cert and --key"}
    for argument, flag in words.items():
        sentence = sentence.replace(argument, flag)
    return sentence


class _Notes(logging.Handler):
    """Shows what the client reports while a call is running: a server that was lost."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        if self._output.is_mid_line:
            self._output.write("\n")
        note(record.getMessage())


def remote_options(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give ``command`` the options of every command; it runs where Ctrl-C does no harm."""

    @wraps(command)
    def interruptible(remote: Remote, *args: Any, **options: Any) -> int | None:
        with remote.interrupts:
            return remote.interrupts.run(lambda: command(remote, *args, **options))

    return connection_options(interruptible)


def connection_options(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give ``command`` the options of every command, as its first argument."""

    @click.option(
        "--target",
        envvar="ELMAN_TARGET",
        default="127.0.0.1:50051",
        metavar="HOST:PORT",
        show_default=True,
        show_envvar=True,
        callback=_checked_target,
        help="Where the server listens.",
    )
    @click.option("--tls", is_flag=True, envvar="ELMAN_TLS", show_envvar=True, help="Encrypt the connection.")
    @click.option("--ca", **_file("ELMAN_CA"), help="PEM file to check the server's against; implies --tls.")
    @click.option("--cert", **_file("ELMAN_CERT"), help="Your own certificate, a PEM file; implies --tls.")
    @click.option("--key", **_file("ELMAN_KEY"), help="The private key of --cert, a PEM file.")
    @click.option(
        "--token-file",
        **_file("ELMAN_TOKEN_FILE"),
        help="File that holds your token; ELMAN_TOKEN is the token itself.",
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
        security = Security(**{name: options.pop(name) for name in SECURITY})
        return command(Remote(target, timeout, as_json, security), *args, **options)

    return wrapped


def _file(variable: str) -> dict[str, Any]:
    kind = click.Path(exists=True, dir_okay=False, readable=True)
    return {"type": kind, "envvar": variable, "show_envvar": True, "metavar": "FILE"}


def _checked_target(_ctx: click.Context, _parameter: click.Parameter, target: str) -> str:
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in _SCHEMES:
        raise click.UsageError(f"--target is HOST:PORT without {scheme}://, such as {rest.rstrip('/')}")
    if ":" not in target or not target.isprintable() or " " in target:
        raise click.UsageError(f"--target is HOST:PORT, such as 127.0.0.1:50051, not {target!r}")
    return target


def choose_model(client: elman_client.Client, name: str | None) -> elman_client.Model:
    """Return the named model; without a name ``shakespeare``, or the only one there is."""
    if name is not None:
        return client.get_model(name)
    models = client.list_models()
    for model in models:
        if model.name == _FAVOURITE or len(models) == 1:
            return model
    names = ", ".join(model.name.removeprefix("models/") for model in models)
    raise click.UsageError(f"Choose one with --model: the server has {names or 'none'}.")


def model_of(client: elman_client.Client, session: elman_client.Session) -> elman_client.Model:
    """Return the model of a session that was looked at."""
    return client.get_model(session.info.model)


def check_arithmetic(session: elman_client.Session, model: elman_client.Model) -> None:
    """Say so if a session's last turn was run by other arithmetic than the server's."""
    last = session.info.fingerprint
    if last not in {"", model.fingerprint}:
        note(
            f"its last turn was run by other arithmetic ({last}); this server ({model.fingerprint}) continues it in "
            "its own way, and a replay may differ"
        )
