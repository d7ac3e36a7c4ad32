"""``elman sessions upgrade``."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

import elman_client
from elman_client.cli._completion import complete_model, complete_session
from elman_client.cli._output import print_json
from elman_client.cli._remote import Remote, remote_options
from elman_client.cli._score import cut
from elman_client.cli._values import duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta


@dataclass(frozen=True)
class _Upgraded:
    """What was read again; losses in nats per character, ``None`` where a version is not served, or nothing scored."""

    session: str
    model: str
    before: str
    num_chars: int
    loss: float | None
    loss_before: float | None


@click.command()
@click.argument("name", shell_complete=complete_session)
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="By default the newest of its own model.")
@click.option("--as", "session_id", metavar="ID", help="Make a session of this name, and keep the old one as it is.")
@click.option("--ttl", type=duration, metavar="TIME", help="Idle time after which it expires: 90s, 15m, 2h or 7d.")
@remote_options
def upgrade(remote: Remote, name: str, *, model: str | None, session_id: str | None, ttl: timedelta | None) -> None:
    """Let another version of its model continue a session.

    \b
    That version reads the whole text. Prints the loss of both on it, if the old one is still served. The
    session keeps its name, seed and labels; its turns become one. The old session is deleted when the
    new one is complete, and only if nothing has changed it meanwhile.

    \b
    Examples:
      elman sessions upgrade my-session
      elman sessions upgrade my-session --model shakespeare/versions/3 --as my-session-3
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        old = client.get_session(name)
        wanted = client.get_model(model or old.info.model.partition("/versions/")[0])
        if wanted.digest == old.info.model_digest:
            raise click.UsageError(f"{old.name} is on {old.info.model} already")
        text = old.transcript(end=old.info.position).text
        if "\ufffd" in text and wanted.byte_level:
            raise click.ClickException(f"{old.name} holds bytes that are not text, which cannot be read again")
        with _read(client, old.info, wanted, text, session_id=session_id, ttl=ttl) as (made, loss):
            loss_before = _loss_before(client, old.info, text)
            new = made if session_id is not None else _take_name(client, made, old)
        _report(remote, _Upgraded(new.name, new.info.model, old.info.model, len(text), loss, loss_before))


@contextlib.contextmanager
def _read(
    client: elman_client.Client,
    like: elman_client.SessionInfo,
    model: elman_client.Model,
    text: str,
    *,
    session_id: str | None = None,
    ttl: timedelta | None = None,
) -> Iterator[tuple[elman_client.Session, float | None]]:
    """Yield a new session that has read a text, and its loss; after an error there is none."""
    session = client.create_session(
        f"{model.name}/versions/{model.version}",
        session_id=session_id,
        seed=like.seed,
        ttl=ttl,
        labels=like.labels,
        initial_state=like.initial_state,
    )
    try:
        details = [d for piece in cut(text, model) for d in session.append(piece, log_probability=True).details]
        scored = [detail.log_probability for detail in details if detail.log_probability is not None]
        yield session, -math.fsum(scored) / max(1, len(text) - 1) if scored else None
    except BaseException:
        session.delete()
        raise


def _loss_before(client: elman_client.Client, info: elman_client.SessionInfo, text: str) -> float | None:
    """Return the loss of the version that a session was on; ``None``: it is not served."""
    try:
        model = client.get_model(info.model)
    except elman_client.NotFoundError:
        return None
    if model.digest != info.model_digest:
        return None
    with _read(client, info, model, text) as (session, loss):
        session.delete()
    return loss


def _take_name(
    client: elman_client.Client, new: elman_client.Session, old: elman_client.Session
) -> elman_client.Session:
    """Give a session the name of another, which is deleted; return it."""
    snapshot = new.export()
    old.delete(etag=old.info.etag)
    try:
        named = client.import_session(snapshot, session_id=old.name.removeprefix("sessions/"))
    except elman_client.ElmanError as error:
        click.echo(f"elman: the session is {new.name}: it could not get its name: {error}", err=True)
        return new
    new.delete()
    return named


def _report(remote: Remote, done: _Upgraded) -> None:
    if remote.as_json:
        print_json(asdict(done))
        return
    click.echo(f"{done.session} is on {done.model}, {done.num_chars} characters were read")
    if done.loss is None:
        click.echo("no loss: it takes two characters")
    elif done.loss_before is None:
        click.echo(f"{done.loss:.4f} nats per character; {done.before} is not served any more")
    else:
        change = done.loss - done.loss_before
        click.echo(f"{done.loss:.4f} nats per character, {done.loss_before:.4f} before ({change:+.4f})")
