"""What an error means to somebody who typed a command: flags in place of the contract's fields, and the next step."""

from __future__ import annotations

from typing import Final

import click

import elman_client

# Fields of the contract by the last part of their path.
_NAMES: Final = {
    "candidate_count": "the number of candidates",
    "count": "--count",
    "end": "--end",
    "filter": "--filter",
    "initial_state": "--initial-state",
    "labels": "--label",
    "max_chars": "--max-chars",
    "min_p": "--min-p",
    "model": "--model",
    "name": "the session's name",
    "prompt": "the prompt",
    "read_out": "--read-out",
    "repetition_penalty": "--repetition-penalty",
    "replace_with": "--unknown replace=",
    "seed": "--seed",
    "session": "the session's name",
    "session_id": "the session's name",
    "stop_strings": "--stop",
    "temperature": "--temperature",
    "text": "the text",
    "top_k": "--top-k",
    "top_n": "--detail",
    "top_p": "--top-p",
    "pattern": "--pattern",
    "signal": "--unit",
    "layer": "--unit",
    "unit_count": "--count",
    "units": "--unit",
    "ttl": "--ttl",
}
_VERBS: Final = ("is ", "has ", "lies ", "cannot ", "must ", "names ")
_READ: Final = {"prompt", "text"}  # here a command can choose what to do with unknown characters
_CURLY: Final = frozenset("‘’“”–—…")  # noqa: RUF001 - these are what the hint is about

# What gRPC says of a server that it cannot reach, and what that means.
_UNREACHABLE: Final = (
    ("errors resolving", "there is no host of that name: check --target"),
    ("DNS resolution failed", "there is no host of that name: check --target"),
    ("Connection refused", "is elman-server running? start it with `elman-server`"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by an authority that is trusted here"),
    ("Hostname Verification Check failed", "its certificate is for another name"),
    ("CERTIFICATE_EXPIRED", "its certificate has expired"),
    ("WRONG_VERSION_NUMBER", "it does not use TLS"),
    ("Failed parsing HTTP/2", "another program listens there, not an elman-server"),
    ("Socket closed", "it closed the connection at once: it may expect --tls or your --cert, or be another program"),
)


def explain(error: Exception) -> str:
    """Return what happened and what to do next."""
    if isinstance(error, click.ClickException):
        ctx = getattr(error, "ctx", None)  # of wrong usage
        return f"{error.format_message().rstrip('.')}. See `{ctx.command_path} --help`." if ctx else error.message
    if isinstance(error, OSError):
        return f"{error.filename or 'standard output'}: {error.strerror}"
    if isinstance(error, elman_client.UnavailableError) and not error.reason:
        return _unreachable(error.message)
    if isinstance(error, elman_client.InvalidArgumentError) and error.field_violations:
        return _invalid(error)
    return _said(error)


def _said(error: Exception) -> str:
    if isinstance(error, elman_client.UnimplementedError):
        return "the server does not offer this: it is older than this program, or runs with --inspection off"
    if isinstance(error, elman_client.InternalError):
        return f"{error} (request {error.request_id})"
    return str(error)


def _unreachable(message: str) -> str:
    target, _, cause = message.partition(": ")
    hints = [hint for words, hint in _UNREACHABLE if words in cause]
    return f"cannot reach {target}: {hints[0] if hints else 'is elman-server running there? try again in a moment'}"


def _invalid(error: elman_client.InvalidArgumentError) -> str:
    violation = error.field_violations[0]
    field = violation.field.rpartition(".")[2].partition("[")[0]
    name, description = _NAMES.get(field, violation.field), violation.description
    if isinstance(error, elman_client.CharacterNotInVocabularyError):
        unknown = error.details.metadata.get("characters", "")
        shown = " ".join(f"'{character}'" if character.isprintable() else ascii(character) for character in unknown)
        return f"{name}: the model does not have {shown}; {_way_out(field, unknown)}"
    return f"{name} {description}" if description.startswith(_VERBS) else f"{name}: {description}"


def _way_out(field: str, unknown: str) -> str:
    """Return what to do about characters that the model does not have."""
    if field not in _READ:
        return "for a line break write $'\\n'" if "\\" in unknown else "choose other characters"
    plain = ", or --plain-quotes for curly quotes and dashes" if _CURLY & set(unknown) else ""
    return f"leave them out, or choose --unknown skip or --unknown replace=?{plain}"
