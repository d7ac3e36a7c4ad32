"""What is looked into: a model that reads a text, or a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from elman_client.cli._remote import choose_model, model_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import elman_client


@dataclass(frozen=True)
class Inspected:
    """A session, or a model; ``None``: the one that ``choose_model`` chooses."""

    client: elman_client.Client
    model_name: str | None
    session_name: str | None

    def model(self) -> elman_client.Model:
        """Return the model that reads."""
        if self.session_name:
            return model_of(self.client, self.client.get_session(self.session_name))
        return choose_model(self.client, self.model_name)

    def watch(self, text: str | None, **options: Any) -> Iterator[elman_client.StateChunk]:
        """Watch units; see ``Client.watch``."""
        if self.session_name:
            return self.client.session(self.session_name).watch(text, **options)
        return self.client.watch(_required(text), model=self.model().name, **options)

    def explain(self, text: str | None, **options: Any) -> elman_client.ExplainedStep:
        """Explain a step; see ``Client.explain``."""
        if self.session_name:
            return self.client.session(self.session_name).explain(text, **options)
        return self.client.explain(_required(text), model=self.model().name, **options)

    def find_units(self, text: str | None, **options: Any) -> elman_client.FoundUnits:
        """Find units; see ``Client.find_units``."""
        if self.session_name:
            return self.client.session(self.session_name).find_units(text, **options)
        return self.client.find_units(_required(text), model=self.model().name, **options)


def checked(model: str | None, session: str | None, text: object, name: str) -> None:
    """Refuse a command that names both a model and a session, or neither a session nor a text."""
    if model and session:
        raise click.UsageError("--model and --session exclude each other")
    if text is None and not session:
        raise click.UsageError(f"give {name}, or choose --session")


def _required(text: str | None) -> str:
    assert text is not None  # `checked` was called
    return text
