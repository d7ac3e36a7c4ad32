"""``elman sessions``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from elman_client.cli._failures import Commands
from elman_client.cli._output import local_time, print_json, print_table
from elman_client.cli._remote import Remote, choose_model, remote_options

if TYPE_CHECKING:
    import elman_client


@click.group(cls=Commands)
def sessions() -> None:
    """Make sessions, look at them, or delete them.

    \b
    Example:
      elman sessions list --filter 'model = "models/shakespeare"'
    """  # noqa: D301 - \b is click's sign for lines to keep as they are


@sessions.command(name="list")
@click.option(
    "--filter",
    "terms",
    default="",
    help="Terms joined by AND, such as 'labels.user = \"ann\"'.",
)
@remote_options
def list_(remote: Remote, terms: str) -> None:
    """List the sessions, in name order.

    \b
    Example:
      elman sessions list --filter 'labels.user = "ann"'
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        found = client.list_sessions(terms)
        if remote.as_json:
            for session in found:
                print_json(session.info)
            return
        print_table(
            ("NAME", "MODEL", "STATE", "POSITION", "EXPIRES"),
            [_row(session.info) for session in found],
        )


@sessions.command()
@click.option("--model", metavar="NAME", help="Its model.")
@click.option("--id", "session_id", metavar="ID", help="The last part of its name; by default the server's choice.")
@click.option("--seed", type=int, help="Of turns that bring none; by default the server's choice.")
@click.option("--initial-state", metavar="NAME", help="What it starts from; `elman models` lists them.")
@remote_options
def create(
    remote: Remote, *, model: str | None, session_id: str | None, seed: int | None, initial_state: str | None
) -> None:
    """Make a session and print its name.

    \b
    Example:
      elman generate "But soft" --session $(elman sessions create --initial-state juliet)
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        name = choose_model(client, model).name
        info = client.create_session(name, session_id=session_id, seed=seed, initial_state=initial_state).info
    print_json(info) if remote.as_json else click.echo(info.name)


@sessions.command()
@click.argument("name")
@remote_options
def show(remote: Remote, name: str) -> None:
    """Show one session.

    \b
    Example:
      elman sessions show my-session
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        info = client.get_session(name).info
    print_json(info) if remote.as_json else print_info(info)


@sessions.command()
@click.argument("names", nargs=-1, required=True)
@remote_options
def delete(remote: Remote, names: tuple[str, ...]) -> None:
    """Forget sessions. A turn that is running on one ends.

    \b
    Example:
      elman sessions delete my-session
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        for name in names:
            session = client.session(name)
            session.delete()
            if remote.as_json:
                print_json({"deleted": session.name})
            else:
                click.echo(f"deleted {session.name}")


def print_info(info: elman_client.SessionInfo) -> None:
    """Print a session, one field a line."""
    for label, value in (
        ("name", info.name),
        ("model", info.model),
        ("started", info.initial_state),
        ("state", info.state.lower()),
        ("position", info.position),
        ("turns", info.turn_count),
        ("seed", info.seed),
        ("created", local_time(info.create_time)),
        ("updated", local_time(info.update_time)),
        ("expires", local_time(info.expire_time)),
        ("labels", " ".join(f"{key}={text}" for key, text in info.labels.items()) or "none"),
        ("memory", info.state_digest),
    ):
        click.echo(f"{label:<10}{value}")


def _row(info: elman_client.SessionInfo) -> tuple[object, ...]:
    return (
        info.name.removeprefix("sessions/"),
        info.model.removeprefix("models/"),
        info.state.lower(),
        info.position,
        local_time(info.expire_time),
    )
