"""``elman replay``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from elman_client.cli._completion import complete_session
from elman_client.cli._failures import Exit
from elman_client.cli._output import print_json
from elman_client.cli._remote import Remote, remote_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    import elman_client


@click.command()
@click.argument("session", shell_complete=complete_session)
@remote_options
def replay(remote: Remote, session: str) -> Exit:
    """Rerun every turn of SESSION on the server. Report whether each comes out bit for bit.

    The exit code is 1 where it does not. With --json one object a turn.

    \b
    Example:
      elman replay my-session
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    with remote.connect() as client:
        found = []
        for turn in progress(client.session(session).replay()):
            found.append(turn)
            if remote.as_json:
                print_json({**vars(turn), "is_equal": turn.is_equal})
    if not remote.as_json:
        click.echo(verdict(found))
    return Exit.OK if all(turn.is_equal for turn in found) else Exit.ERROR


def verdict(turns: list[elman_client.ReplayedTurn]) -> str:
    """Return what a replay found, in one sentence."""
    if not turns:
        return "there is nothing to replay"
    last = turns[-1]
    if last.difference_at is not None:
        outcome = f"differs at position {last.difference_at}, in the turn from {last.turn.start} to {last.turn.end}"
    elif not last.is_state_equal:
        outcome = f"the text is equal, but the state differs after the turn from {last.turn.start} to {last.turn.end}"
    else:
        plural = "" if len(turns) == 1 else "s"
        outcome = f"bit-equal: {last.end_position} characters, {len(turns)} turn{plural}"
    if not all(turn.is_fingerprint_equal for turn in turns):
        outcome += "; the fingerprint changed: turns were run by other arithmetic than this server's"
    return outcome


def progress(turns: Iterator[elman_client.ReplayedTurn]) -> Iterator[elman_client.ReplayedTurn]:
    """Show how far a replay has come, on a terminal."""
    if not sys.stderr.isatty():
        yield from turns
        return
    with click.progressbar(length=1, label="replaying", file=sys.stderr) as bar:
        for turn in turns:
            bar.length = max(1, turn.end_position)
            bar.update(turn.turn.end - bar.pos)
            yield turn
