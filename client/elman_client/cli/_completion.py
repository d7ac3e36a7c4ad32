"""Names of models and sessions for the shell's completion: from the server, or none if it does not answer at once."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

import elman_client
from elman_client.cli._remote import SECURITY, Security, client_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATIENCE: Final = 1.0  # seconds
_MOST: Final = 1000  # sessions


def complete_model(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the models whose name begins so."""
    return _matching(incomplete, (model.name.removeprefix("models/") for model in _models(ctx)))


def complete_session(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the sessions whose name begins so."""
    try:
        with _client(ctx) as client:
            names = (session.name.removeprefix("sessions/") for session in client.list_sessions(page_size=_MOST))
            return _matching(incomplete, islice(names, _MOST))
    except (elman_client.ElmanError, click.ClickException, OSError):
        return []


def complete_read_out(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the read-outs of the chosen model, or of all."""
    return _matching(incomplete, (read_out.name for model in _models(ctx) for read_out in model.read_outs))


def complete_initial_state(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the initial states of the chosen model, or of all."""
    return _matching(incomplete, (state for model in _models(ctx) for state in model.initial_states))


def _models(ctx: click.Context) -> tuple[elman_client.Model, ...]:
    chosen = ctx.params.get("model")
    try:
        with _client(ctx) as client:
            return (client.get_model(chosen),) if chosen else client.list_models()
    except (elman_client.ElmanError, click.ClickException, OSError):
        return ()


def _client(ctx: click.Context) -> elman_client.Client:
    return client_of(
        ctx.params["target"],
        Security(**{name: ctx.params[name] for name in SECURITY}),
        timeout=_PATIENCE,
        retry_seconds=0,
    )


def _matching(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]
