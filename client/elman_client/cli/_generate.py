"""``elman generate``."""

from __future__ import annotations

import codecs
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Unpack

import click

import elman_client
from elman_client.cli._colors import Painter, choose_painter, part
from elman_client.cli._completion import complete_model, complete_session
from elman_client.cli._output import print_event
from elman_client.cli._remote import Remote, choose_model, model_of, remote_options
from elman_client.cli._sampling import sampling_options
from elman_client.cli._texts import Cleaner, decode, plain, text_options

if TYPE_CHECKING:
    from elman_client.cli._streams import Output


_MOST_NATS: Final = 6.0


@click.command()
@click.argument("prompt")
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="Generate from a model's beginning.")
@click.option(
    "--session", metavar="NAME", shell_complete=complete_session, help="Continue a session, and keep the text in it."
)
@sampling_options
@text_options
@click.option(
    "--detail",
    "top_n",
    type=int,
    metavar="N",
    help="With --json: each character's log-probability and the N likeliest, before and after the filters.",
)
@click.option(
    "--colour",
    "--color",
    "color",
    type=click.Choice(["none", "surprise"]),
    default="none",
    show_default=True,
    help="On a terminal, colour each character by its surprise in nats: white 0, red 6 and more.",
)
@click.option("--no-echo", is_flag=True, help="Do not print the prompt.")
@click.option("--stats", is_flag=True, help="Print the speed on standard error.")
@remote_options
def generate(
    remote: Remote,
    prompt: str,
    *,
    model: str | None,
    session: str | None,
    plain_quotes: bool,
    color: str,
    no_echo: bool,
    stats: bool,
    **options: Unpack[elman_client.GenerateOptions],
) -> None:
    """Print PROMPT and the text that follows it, as it is generated. "-" reads standard input.

    \b
    Examples:
      elman generate "ROMEO:" --temperature 0.8 --max-chars 500 --seed 7
      echo -n "To be" | elman generate - --stop . --include-stop --stats
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    if model and session:
        raise click.UsageError("--model and --session exclude each other")
    if options["top_n"] is not None:
        if not remote.as_json:
            raise click.UsageError("--detail needs --json")
        options["log_probability"] = options["effective"] = True
    painter = choose_painter() if color == "surprise" and not remote.as_json else None
    if painter:
        options["log_probability"] = True
    if not prompt.isascii():
        decode(os.fsencode(prompt), "the prompt")
    piped = decode(sys.stdin.buffer.read(), "standard input") if prompt == "-" else None
    with remote.connect() as client:
        source = _Source(client, model, session)
        if piped is not None:
            prompt = Cleaner("standard input", source.model, plain_quotes=plain_quotes).clean(piped)
        elif plain_quotes:
            prompt = plain(prompt, source.model())
        start = time.perf_counter()
        with source.generate(prompt, options) as turn, remote.interrupts.stopping(turn.close):
            if remote.as_json:
                _print_events(turn)
            else:
                _print_text(remote.output, "" if no_echo else prompt, turn, source, painter)
        if stats and not remote.interrupts.is_interrupted:
            _print_stats(turn.finished, time.perf_counter() - start)


@dataclass(frozen=True)
class _Source:
    """The model, or the session, that continues the prompt."""

    client: elman_client.Client
    model_name: str | None
    session_name: str | None

    def model(self) -> elman_client.Model:
        if self.session_name:
            return model_of(self.client, self.client.get_session(self.session_name))
        return choose_model(self.client, self.model_name)

    def generate(self, prompt: str, options: elman_client.GenerateOptions) -> elman_client.Generation:
        if self.session_name:
            return self.client.session(self.session_name).generate(prompt, **options)
        return self.client.generate(prompt, model=self.model().name, **options)

    def keep(self, position: int) -> None:
        """Let the session, if there is one, end at a position."""
        if self.session_name:
            self.client.session(self.session_name).rewind(position)


def _print_events(turn: elman_client.Generation) -> None:
    for event in turn.events():
        print_event(event)


def _print_text(
    output: Output, prompt: str, turn: elman_client.Generation, source: _Source, painter: Painter | None
) -> None:
    chunks: list[elman_client.Chunk] = []
    try:
        for event in turn.events():
            if isinstance(event, elman_client.Started):  # the server has accepted the prompt
                output.write(prompt)
            elif isinstance(event, elman_client.Chunk):
                chunks.append(event)
                output.write(_by_surprise(event, painter) if painter else event.text)
    except BrokenPipeError:
        turn.close()
        source.keep(_position(turn.started, chunks, output))
        raise
    if output.is_mid_line:
        output.write("\n")


def _by_surprise(chunk: elman_client.Chunk, painter: Painter) -> str:
    """Return the text of a chunk on colours; a character of several bytes is as surprising as they are together."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    is_of_bytes = "".join(detail.text for detail in chunk.details) != chunk.text
    painted, nats = [], 0.0
    for detail in chunk.details:
        nats -= detail.log_probability or 0.0
        text = decoder.decode(detail.text.encode("latin-1")) if is_of_bytes else detail.text
        if text:
            painted.append(text if text == "\n" else painter.on(text, part(nats / _MOST_NATS)))
            nats = 0.0
    return "".join(painted)


def _position(started: elman_client.Started, chunks: list[elman_client.Chunk], output: Output) -> int:
    """Return the position up to which the text was read at the other end of a pipe."""
    unread = output.num_unread
    prompt_end = started.start_position + started.prompt_chars
    starts = [prompt_end, *(chunk.position for chunk in chunks)]
    for chunk, start in zip(reversed(chunks), reversed(starts[:-1]), strict=True):
        data = output.encode(chunk.text)
        if unread < len(data):
            read = data[: len(data) - unread].decode(output.encoding, "ignore")
            lost = chunk.text[len(read) :]
            is_of_bytes = chunk.position - start != len(chunk.text)  # such a model counts those
            return chunk.position - len(lost.encode() if is_of_bytes else lost)
        unread -= len(data)
    return prompt_end


def _print_stats(finished: elman_client.Finished, seconds: float) -> None:
    num_chars = finished.usage.generated_chars
    click.echo(
        f"{num_chars} characters, {num_chars / seconds:.0f} characters per second, ended by {finished.finish_reason}",
        err=True,
    )
