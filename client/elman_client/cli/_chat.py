"""``elman chat``."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Unpack

import click

import elman_client
from elman_client.cli._completion import complete_initial_state, complete_model, complete_session
from elman_client.cli._conversation import HELP, Conversation, Leave
from elman_client.cli._explanations import explain
from elman_client.cli._failures import complain, hint, is_colored
from elman_client.cli._remote import Remote, choose_model, connection_options
from elman_client.cli._sampling import sampling_options
from elman_client.cli._texts import Cleaner, decode, text_options

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

_MAX_SHOWN: Final = 1000  # characters of a session's past


@click.command()
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="The model of a new session.")
@click.option("--session", metavar="NAME", shell_complete=complete_session, help="Continue a session.")
@click.option(
    "--initial-state",
    metavar="NAME",
    shell_complete=complete_initial_state,
    help="What a new session starts from; `elman models` lists them.",
)
@sampling_options
@text_options
@connection_options
def chat(
    remote: Remote,
    *,
    model: str | None,
    session: str | None,
    initial_state: str | None,
    plain_quotes: bool,
    **options: Unpack[elman_client.GenerateOptions],
) -> None:
    """Talk with a model. It continues each line, and its session keeps them all.

    Ctrl-C stops an answer and keeps what was shown, Ctrl-D leaves, /help lists the commands.
    An answer ends at an empty line, unless --stop names another text.

    \b
    Examples:
      elman chat --temperature 0.8
      echo "ROMEO:" | elman chat --seed 7 --max-chars 200
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    if session and (model or initial_state):
        raise click.UsageError(f"{'--model' if model else '--initial-state'} and --session exclude each other")

    client = remote.connect()

    def begin() -> Conversation:
        if session:
            at = client.get_session(session)
        else:
            at = client.create_session(choose_model(client, model).name, initial_state=initial_state)
        return Conversation(remote, client, at, options, plain_quotes=plain_quotes)

    with remote.interrupts as interrupts:
        try:
            conversation = interrupts.run(begin)
            if sys.stdin.isatty() and sys.stdout.isatty():
                _Terminal(remote, conversation).talk(has_past=session is not None)
            else:
                interrupts.run(lambda: _answer_pipe(remote, conversation))
        finally:
            interrupts.run(client.close)


def _answer_pipe(remote: Remote, conversation: Conversation) -> None:
    """Answer each line of a pipe; nobody can correct one, so that an error ends it."""
    cleaner = Cleaner("standard input", lambda: conversation.model)
    for line in remote.interrupts.until(sys.stdin.buffer):
        try:
            conversation.take(cleaner.clean(decode(line, "standard input")).removesuffix("\n"))
        except Leave:
            return


class _Terminal:
    """A chat with somebody who types. Only the prompt is the main thread's own."""

    def __init__(self, remote: Remote, conversation: Conversation) -> None:
        self._remote = remote
        self._run = remote.interrupts.run
        self._conversation = conversation

    def talk(self, *, has_past: bool) -> None:
        """Show a banner, then answer each line until the user leaves."""
        summary, transcript, names = self._run(self._begin)
        if not self._remote.as_json:
            hint(f"elman {version('elman')} at {self._remote.target}\n{summary}")
            hint("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves\n")
            if has_past:
                self._show_past(transcript)
        prompt = _prompt(names, transcript)
        while self._answer(prompt):
            pass
        hint(f"The session stays: elman chat --session {self._conversation.name}")

    def _begin(self) -> tuple[str, elman_client.Transcript, list[str]]:
        conversation = self._conversation
        return conversation.summary(), conversation.transcript(), conversation.model_names

    def _show_past(self, transcript: elman_client.Transcript) -> None:
        text = transcript.text[-_MAX_SHOWN:]
        if len(text) < len(transcript.text):
            hint(f"… the last {len(text)} of {len(transcript.text)} characters; /transcript shows all")
        self._remote.output.write(text)
        if self._remote.output.has_open_line:
            self._remote.output.write("\n")

    def _answer(self, prompt: PromptSession[str]) -> bool:
        """Answer the next line; return whether the chat continues."""
        self._remote.interrupts.forget()  # it came too late for the last answer
        try:
            # A Ctrl-C of the moment between the prompt and its answer is for the answer: ours to handle.
            line = prompt.prompt(handle_sigint=False)
        except KeyboardInterrupt:
            hint("Ctrl-D leaves.")
            return True
        except EOFError:
            return False
        try:
            self._run(lambda: self._conversation.take(line), is_patient=True)
        except KeyboardInterrupt:
            hint(" [stopped]", "yellow")
        except Leave:
            return False
        except (elman_client.ElmanError, click.ClickException, OSError) as error:
            complain(explain(error))
        return True


def _prompt(models: list[str], transcript: elman_client.Transcript) -> PromptSession[str]:
    """Return a prompt that completes commands and remembers the lines of the session's past."""
    from prompt_toolkit import PromptSession  # noqa: PLC0415 - takes a fifth of a second
    from prompt_toolkit.completion import WordCompleter  # noqa: PLC0415
    from prompt_toolkit.formatted_text import FormattedText  # noqa: PLC0415
    from prompt_toolkit.history import InMemoryHistory  # noqa: PLC0415

    typed = (transcript.text[turn.start : turn.prompt_end].rstrip("\n") for turn in transcript.turns)
    history = InMemoryHistory([line for line in typed if line and "\n" not in line])
    lines = [*(f"/{name}" for name in HELP), *(f"/model {model}" for model in models)]
    completer = WordCompleter(lines, sentence=True)
    return PromptSession(
        FormattedText([("bold ansigreen" if is_colored() else "", "> ")]),
        history=history,
        completer=completer,
        complete_while_typing=False,
    )
