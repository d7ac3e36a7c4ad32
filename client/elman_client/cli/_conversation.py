"""What a chat does with each line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import elman_client
from elman_client.cli._output import print_event, print_json
from elman_client.cli._replay import progress, verdict
from elman_client.cli._sessions import print_info

if TYPE_CHECKING:
    from collections.abc import Callable

_HELP = """\
/temp X   draw with temperature X; 0 takes the likeliest
/seed N   draw from seed N; without N from the session's own
/undo     take the last turn back
/fork     go on in a copy of the session; the first stays as it is
/save F   write the session to file F
/load F   go on with the session that was written to file F
/replay   take all turns again, and say whether they come out bit for bit
/reset    go on in a new session, with the memory that this one started with
/info     show the session
/help     show this
Ctrl-C stops an answer, Ctrl-D leaves. An empty line lets the model go on."""

_MAX_CHARS = 500
_PARAGRAPH = "\n\n"


class Conversation:
    """Lines in, text or commands out, on one session at a time."""

    def __init__(
        self,
        client: elman_client.Client,
        session: elman_client.Session,
        options: elman_client.GenerateOptions,
        *,
        as_json: bool,
    ) -> None:
        self._client = client
        self._session = session
        self._as_json = as_json
        self._options = options
        self._options["max_chars"] = options.get("max_chars") or _MAX_CHARS
        model = client.get_model(session.info.model.split("/versions/")[0])
        self._line_end = "\n" if model.byte_level or "\n" in model.vocabulary else ""
        if self._line_end and not options.get("stop_strings"):
            # The memory keeps the end of the paragraph: the next line begins a new one.
            self._options["stop_strings"] = _PARAGRAPH
            self._options["include_stop"] = True

    @property
    def name(self) -> str:
        """The session's name, without its collection."""
        return self._session.name.removeprefix("sessions/")

    def take(self, line: str) -> None:
        """Answer one line; raises ElmanError, ClickException or OSError, and goes on with the next."""
        if line.startswith("/"):
            self._command(*line[1:].partition(" ")[::2])
        else:
            self._answer(line + self._line_end if line else "")

    def _answer(self, prompt: str) -> None:
        ending = ""
        with self._session.generate(prompt, **self._options) as turn:
            try:
                for event in turn.events():
                    if self._as_json:
                        print_event(event)
                    elif isinstance(event, elman_client.Chunk):
                        click.echo(event.text, nl=False)  # flushes
                        ending = event.text
            except KeyboardInterrupt:
                click.echo(" [stopped]", err=True)
        if not self._as_json and not ending.endswith("\n"):
            click.echo()

    def _command(self, name: str, argument: str) -> None:
        commands: dict[str, Callable[[str], None]] = {
            "temp": self._set_temperature,
            "seed": self._set_seed,
            "undo": self._undo,
            "fork": self._fork,
            "save": self._save,
            "load": self._load,
            "replay": self._replay,
            "reset": self._reset,
            "info": self._show,
            "help": lambda _argument: click.echo(_HELP, err=True),
        }
        if name not in commands:
            raise click.ClickException(f"there is no /{name}: /help lists what there is")
        try:
            commands[name](argument.strip())
        except ValueError:
            message = f"/{name} takes a number, not {argument!r}: as in /temp 0.5 or /seed 7"
            raise click.ClickException(message) from None

    def _set_temperature(self, argument: str) -> None:
        self._options["temperature"] = float(argument)

    def _set_seed(self, argument: str) -> None:
        self._options["seed"] = int(argument) if argument else None

    def _undo(self, _argument: str) -> None:
        turns = self._session.transcript().turns
        if not turns:
            raise click.ClickException("there is nothing to undo")
        info = self._session.rewind(turns[-1].start)
        click.echo(f"back at {info.position}", err=True)

    def _fork(self, _argument: str) -> None:
        left = self.name
        (self._session,) = self._session.fork()
        click.echo(f"new session {self.name}; {left} stays as it is", err=True)

    def _save(self, argument: str) -> None:
        if not argument:
            raise click.ClickException("/save takes a file: as in /save talk.elman")
        snapshot = self._session.export()
        Path(argument).write_bytes(snapshot)
        click.echo(f"{len(snapshot)} bytes in {argument}", err=True)

    def _load(self, argument: str) -> None:
        if not argument:
            raise click.ClickException("/load takes a file: as in /load talk.elman")
        self._session = self._client.import_session(Path(argument).read_bytes())
        click.echo(f"new session {self.name}, at {self._session.info.position}", err=True)

    def _replay(self, _argument: str) -> None:
        click.echo(verdict(list(progress(self._session.replay()))), err=True)

    def _reset(self, _argument: str) -> None:
        before = self._session.info
        self._session = self._client.create_session(before.model, initial_state=before.initial_state)
        click.echo(f"new session {self.name}", err=True)

    def _show(self, _argument: str) -> None:
        info = self._session.refresh()
        print_json(info) if self._as_json else print_info(info)
