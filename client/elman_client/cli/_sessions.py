"""``elman sessions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import click

from elman_client.cli._completion import complete_initial_state, complete_model, complete_session
from elman_client.cli._failures import Commands
from elman_client.cli._output import local_time, print_json, print_table, printable
from elman_client.cli._remote import Remote, check_arithmetic, choose_model, model_of, remote_options
from elman_client.cli._upgrade import upgrade
from elman_client.cli._values import duration, key_and_value

if TYPE_CHECKING:
    from datetime import timedelta

    import elman_client

_session = click.argument("name", shell_complete=complete_session)
_ttl = click.option(
    "--ttl", type=duration, metavar="TIME", help="Idle time after which it expires: 90s, 15m, 2h or 7d."
)
_labels = click.option(
    "--label", "labels", type=key_and_value, multiple=True, metavar="KEY=VALUE", help="A label. May be repeated."
)


@click.group(cls=Commands, commands=[upgrade])
def sessions() -> None:
    """Create, show, fork, rewind, move, upgrade or delete sessions.

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
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="Its model.")
@click.option("--id", "session_id", metavar="ID", help="The last part of its name; by default the server's choice.")
@click.option("--seed", type=int, help="Of turns that bring none; by default the server's choice.")
@click.option(
    "--initial-state",
    metavar="NAME",
    shell_complete=complete_initial_state,
    help="What it starts from; `elman models` lists them.",
)
@_ttl
@_labels
@remote_options
def create(
    remote: Remote,
    *,
    model: str | None,
    session_id: str | None,
    seed: int | None,
    initial_state: str | None,
    ttl: timedelta | None,
    labels: tuple[tuple[str, str], ...],
) -> None:
    """Create a session and print its name.

    \b
    Examples:
      elman sessions create --id ann-1 --ttl 7d --label user=ann
      elman generate "But soft" --session $(elman sessions create --initial-state juliet)
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        session = client.create_session(
            choose_model(client, model).name,
            session_id=session_id,
            seed=seed,
            initial_state=initial_state,
            ttl=ttl,
            labels=dict(labels),
        )
    print_json(session.info) if remote.as_json else click.echo(session.name)


@sessions.command()
@_session
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
@_session
@click.option("--start", type=int, default=0, show_default=True, metavar="POSITION", help="Where to begin.")
@click.option("--end", type=int, metavar="POSITION", help="Where to end; default: at its end.")
@remote_options
def transcript(remote: Remote, name: str, start: int, end: int | None) -> None:
    """Print what a session has read and written. With --json also its turns.

    \b
    Example:
      elman sessions transcript my-session --start 100
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        found = client.session(name).transcript(start, end)
    if remote.as_json:
        print_json(found)
        return
    remote.output.write(found.text)
    if remote.output.is_mid_line:
        remote.output.write("\n")


@sessions.command()
@_session
@_ttl
@_labels
@click.option("--remove-label", "removed", multiple=True, metavar="KEY", help="Drop a label. May be repeated.")
@remote_options
def update(
    remote: Remote,
    name: str,
    *,
    ttl: timedelta | None,
    labels: tuple[tuple[str, str], ...],
    removed: tuple[str, ...],
) -> None:
    """Set when a session expires, and labels. Other labels stay.

    \b
    Example:
      elman sessions update my-session --ttl 7d --label user=ann --remove-label draft
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    if not (ttl or labels or removed):
        raise click.UsageError("nothing to update: give --ttl, --label or --remove-label")
    with remote.connect() as client:
        session = client.get_session(name)
        kept = {key: value for key, value in session.info.labels.items() if key not in removed}
        changed = {**kept, **dict(labels)} if labels or removed else None
        info = session.update(ttl=ttl, labels=changed, etag=session.info.etag)
    print_json(info) if remote.as_json else print_info(info)


@sessions.command()
@_session
@remote_options
def cancel(remote: Remote, name: str) -> None:
    """End the turn that is running on a session. What it generated stays.

    \b
    Example:
      elman sessions cancel my-session
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        info = client.session(name).cancel()
    print_json(info) if remote.as_json else click.echo(f"{info.name} is at {info.position}")


@sessions.command()
@click.argument("names", nargs=-1, required=True, shell_complete=complete_session)
@remote_options
def delete(remote: Remote, names: tuple[str, ...]) -> None:
    """Delete sessions. A turn that is running on one ends.

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


@sessions.command()
@_session
@click.option("--at", "position", type=int, metavar="POSITION", help="Characters that the forks keep; default: all.")
@click.option("--count", type=int, default=1, show_default=True, metavar="N", help="How many forks.")
@remote_options
def fork(remote: Remote, name: str, position: int | None, count: int) -> None:
    """Create sessions that are what this one was at a position.

    \b
    Example:
      elman sessions fork my-session --at 120 --count 3
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        forks = client.session(name).fork(position, count=count)
    for made in forks:
        print_json(made.info) if remote.as_json else click.echo(made.name)


@sessions.command()
@_session
@click.argument("position", type=int)
@remote_options
def rewind(remote: Remote, name: str, position: int) -> None:
    """Let a session be what it was at POSITION. What came after is deleted.

    \b
    Example:
      elman sessions rewind my-session 120
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        info = client.session(name).rewind(position)
    print_json(info) if remote.as_json else click.echo(f"{info.name} is at {info.position}")


@sessions.command()
@_session
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@remote_options
def export(remote: Remote, name: str, file: str) -> None:
    """Write a session to FILE, signed by the server. "-" writes to standard output.

    \b
    Example:
      elman sessions export my-session my-session.elman
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        session = client.session(name)
        snapshot = session.export()
    with click.open_file(file, "wb") as written:
        written.write(snapshot)
    if file == "-":
        return
    if remote.as_json:
        print_json({"session": session.name, "file": file, "bytes": len(snapshot)})
    else:
        click.echo(f"{session.name} is in {file}, {len(snapshot)} bytes")


@sessions.command(name="import")
@click.argument("file", type=click.File("rb"))
@click.option("--as", "session_id", metavar="NAME", help="The name of the new session; default: a UUID.")
@remote_options
def import_(remote: Remote, file: BinaryIO, session_id: str | None) -> None:
    """Create a session from FILE. The server has the same model and key. "-" reads standard input.

    \b
    Example:
      elman sessions import my-session.elman --as my-session
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        session = client.import_session(file.read(), session_id=session_id)
        check_arithmetic(session, model_of(client, session))
    print_json(session.info) if remote.as_json else click.echo(session.name)


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
        ("forked from", f"{info.forked_from.name} at {info.forked_from.position}" if info.forked_from else None),
        ("labels", " ".join(f"{key}={text}" for key, text in info.labels.items()) or "none"),
        ("digest", info.state_digest),
        ("arithmetic", info.fingerprint or None),
    ):
        if value is not None:
            click.echo(f"{label:<12}{printable(value)}")


def _row(info: elman_client.SessionInfo) -> tuple[object, ...]:
    return (
        info.name.removeprefix("sessions/"),
        info.model.removeprefix("models/"),
        info.state.lower(),
        info.position,
        local_time(info.expire_time),
    )
