"""What a chat does with each line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

import elman_client
from elman_client.cli._failures import hint
from elman_client.cli._output import print_event, print_json
from elman_client.cli._remote import check_arithmetic, model_of
from elman_client.cli._replay import progress, verdict
from elman_client.cli._sessions import print_info
from elman_client.cli._texts import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from elman_client.cli._remote import Remote

HELP: Final = {
    "temp": ("X", "generate with temperature X; 0 takes the likeliest"),
    "seed": ("N", "generate from seed N; without N from the session's own"),
    "stop": ("TEXT", "end answers at TEXT, \\n is a line break; without TEXT at an empty line"),
    "model": ("NAME", "start a new session of a model; without NAME list the models"),
    "transcript": ("", "show all that the session has read and written"),
    "undo": ("", "remove the last turn"),
    "fork": ("", "continue in a copy of the session; the first stays as it is"),
    "save": ("F", "write the session to file F"),
    "load": ("F", "continue the session that was written to file F"),
    "replay": ("", "rerun all turns, and report whether they come out bit for bit"),
    "reset": ("", "start a new session, from the state that this one started from"),
    "info": ("", "show the session and the settings"),
    "help": ("", "show this"),
    "quit": ("", "leave; the session stays"),
}
"""The commands: their argument and what they do."""

_KEYS: Final = """\
Ctrl-C stops an answer, Ctrl-D leaves. After an empty line the model continues by itself.
A line that begins with / is sent with a second one: //like this"""
_PARAGRAPH: Final = "\n\n"
_MAX_SEED: Final = 2**64 - 1
_Number = TypeVar("_Number", int, float)


class Leave(Exception):  # noqa: N818 - no error
    """The chat ends."""


class Conversation:
    """Lines in, text or commands out, on one session at a time."""

    def __init__(
        self,
        remote: Remote,
        client: elman_client.Client,
        session: elman_client.Session,
        options: elman_client.GenerateOptions,
        *,
        plain_quotes: bool,
    ) -> None:
        self._remote = remote
        self._client = client
        self._options = options
        self._plain_quotes = plain_quotes
        self._use(session)

    def _use(self, session: elman_client.Session) -> None:
        """Continue with a session."""
        self._session = session
        self._model = model_of(self._client, session)
        self._line_end = "\n" if self._model.byte_level or "\n" in self._model.vocabulary else ""

    @property
    def name(self) -> str:
        """The session's name, without its collection."""
        return self._session.name.removeprefix("sessions/")

    @property
    def model(self) -> elman_client.Model:
        """The session's model."""
        return self._model

    @property
    def model_names(self) -> list[str]:
        """The models of the server."""
        return [model.name.removeprefix("models/") for model in self._client.list_models()]

    def summary(self) -> str:
        """Return model, session and settings in two lines."""
        model = self._model
        shape = f"{model.cell.lower()}, {model.num_layers} x {model.hidden_size}"
        return f"model {model.name.removeprefix('models/')} ({shape}), session {self.name}\n{self._settings()}"

    def transcript(self) -> elman_client.Transcript:
        """Return what the session has read and written."""
        return self._session.transcript()

    def take(self, line: str) -> None:
        """Answer one line.

        Raises:
            ElmanError, ClickException, OSError: It could not be done; the next line may be.
            Leave: The chat ends.
        """
        if line.startswith("/") and not line.startswith("//"):
            self._command(*line[1:].partition(" ")[::2])
            return
        text = line.removeprefix("/") if line.startswith("//") else line
        self._answer(text + self._line_end if text else "")

    def _answer(self, prompt: str) -> None:
        prompt = plain(prompt, self._model) if self._plain_quotes else prompt
        with (
            self._session.generate(prompt, **self._effective_options()) as turn,
            self._remote.interrupts.stopping(turn.close),
        ):
            for event in turn.events():
                if self._remote.as_json:
                    print_event(event)
                elif isinstance(event, elman_client.Chunk):
                    self._remote.output.write(event.text)
        if not self._remote.as_json:
            self._end_line()

    def _effective_options(self) -> elman_client.GenerateOptions:
        if not self._line_end or self._options.get("stop_strings"):
            return self._options
        # The session keeps the end of the paragraph: the next line begins a new one.
        return {**self._options, "stop_strings": [_PARAGRAPH], "include_stop": True}

    def _end_line(self) -> None:
        """Let what follows begin a line, on a pipe too: an answer is one or more lines."""
        if self._remote.output.has_open_line:
            self._remote.output.write("\n")

    def _settings(self) -> str:
        """Return what the next answer is generated with."""
        options = self._effective_options()
        seed = options.get("seed")
        stops = " or ".join(
            "an empty line" if stop == _PARAGRAPH else repr(stop) for stop in options.get("stop_strings") or ()
        )
        return (
            f"temperature {options.get('temperature')}, "
            f"seed {f'{self._session.info.seed} of the session' if seed is None else seed}, "
            f"at most {options.get('max_chars')} characters{f' or up to {stops}' if stops else ''}"
        )

    def _command(self, name: str, argument: str) -> None:
        commands: dict[str, Callable[[str], None]] = {
            "temp": self._set_temperature,
            "seed": self._set_seed,
            "stop": self._set_stop,
            "model": self._change_model,
            "transcript": self._print_transcript,
            "undo": self._undo,
            "fork": self._fork,
            "save": self._save,
            "load": self._load,
            "replay": self._replay,
            "reset": self._reset,
            "info": self._show,
            "help": self._help,
            "quit": self._leave,
        }
        if name not in commands:
            message = f"there is no /{name}: /help lists what there is; //{name} sends the line itself"
            raise click.ClickException(message)
        commands[name](argument.strip())

    def _set_temperature(self, argument: str) -> None:
        temperature = _number(float, argument)
        if temperature is None or not 0 <= temperature < math.inf:
            raise click.ClickException(f"/temp takes a number from 0 up, such as /temp 0.5, not {argument!r}")
        self._options["temperature"] = temperature

    def _set_seed(self, argument: str) -> None:
        seed = _number(int, argument) if argument else None
        if argument and (seed is None or not 0 <= seed <= _MAX_SEED):
            raise click.ClickException(f"/seed takes a whole number from 0 up, such as /seed 7, not {argument!r}")
        self._options["seed"] = seed

    def _set_stop(self, argument: str) -> None:
        self._options["stop_strings"] = [argument.replace("\\n", "\n")] if argument else []

    def _change_model(self, argument: str) -> None:
        if not argument:
            hint(f"{', '.join(self.model_names)}; this is {self._model.name.removeprefix('models/')}")
            return
        self._use(self._client.create_session(argument))
        hint(self.summary())

    def _print_transcript(self, _argument: str) -> None:
        transcript = self.transcript()
        if self._remote.as_json:
            print_json(transcript)
            return
        self._remote.output.write(transcript.text)
        self._end_line()

    def _undo(self, _argument: str) -> None:
        turns = self.transcript().turns
        if not turns:
            raise click.ClickException("there is nothing to undo")
        info = self._session.rewind(turns[-1].start)
        hint(f"back at {info.position}")

    def _fork(self, _argument: str) -> None:
        left = self.name
        (fork,) = self._session.fork()
        self._use(fork)
        hint(f"new session {self.name}; {left} stays as it is")

    def _save(self, argument: str) -> None:
        if not argument:
            raise click.ClickException("/save takes a file: as in /save talk.elman")
        snapshot = self._session.export()
        Path(argument).write_bytes(snapshot)
        hint(f"{len(snapshot)} bytes in {argument}")

    def _load(self, argument: str) -> None:
        if not argument:
            raise click.ClickException("/load takes a file: as in /load talk.elman")
        self._use(self._client.import_session(Path(argument).read_bytes()))
        hint(f"new session {self.name}, at {self._session.info.position}")
        check_arithmetic(self._session, self._model)

    def _replay(self, _argument: str) -> None:
        interrupts = self._remote.interrupts
        with interrupts.stopping(lambda: None):
            turns = list(interrupts.until(progress(self._session.replay())))
        if not interrupts.is_interrupted:
            hint(verdict(turns))

    def _reset(self, _argument: str) -> None:
        before = self._session.info
        self._use(self._client.create_session(before.model, initial_state=before.initial_state))
        hint(f"new session {self.name}")

    def _show(self, _argument: str) -> None:
        info = self._session.refresh()
        if self._remote.as_json:
            options = self._effective_options()
            in_force = {"seed": info.seed if options.get("seed") is None else options.get("seed")}
            print_json({**vars(info), "answers": {**options, **in_force}})
            return
        print_info(info)
        click.echo(f"{'answers':<12}{self._settings()}")

    def _help(self, _argument: str) -> None:
        for name, (argument, line) in HELP.items():
            hint(f"/{f'{name} {argument}':<12}{line}")
        hint(_KEYS)

    def _leave(self, _argument: str) -> None:
        raise Leave


def _number(kind: type[_Number], text: str) -> _Number | None:
    try:
        return kind(text)
    except ValueError:
        return None
