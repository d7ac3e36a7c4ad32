"""``train``: from a text to a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console

from elman_export.commands.options import check_folder
from elman_export.commands.progress import LiveProgress, PlainProgress
from elman_export.errors import CheckpointError, ExportError
from elman_export.evaluation.corpus import read_corpus
from elman_export.training.recipe import load_recipe
from elman_export.training.run import Display, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_SIZE_FOR_THREADS = 256  # units; smaller products finish before a second thread has started
MIN_FREE_BYTES = 10_000_000  # room for a small checkpoint
SIGNALLED = 128  # plus the signal's number, as shells have it


@click.command()
@click.argument("text", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The checkpoint's folder; created if missing.",
)
@click.option(
    "--recipe",
    "recipe_name",
    default="small",
    show_default=True,
    help="A bundled recipe or a TOML file. The options below override it.",
)
@click.option("--vocabulary", type=click.Choice(["characters", "bytes"]), help="The kind of symbols.")
@click.option("--bytes", "as_bytes", is_flag=True, help="Short for --vocabulary bytes: 256 symbols, any file.")
@click.option("--cell", type=click.Choice(["elman", "gru", "lstm"]), help="The kind of network.")
@click.option("--num-layers", type=int, help="Number of recurrent layers.")
@click.option("--hidden-size", type=int, help="Units in each layer.")
@click.option("--embedding-size", type=int, help="Size of a character's embedding; 0: one-hot vectors.")
@click.option("--epochs", type=float, help="The number of passes over the text.")
@click.option("--minutes", type=float, help="The training time, instead of --epochs; not reproducible.")
@click.option("--learning-rate", type=float, help="Of AdamW at the beginning; it falls linearly.")
@click.option("--patience", type=int, help="Epochs without improvement after which training ends early; 0: never.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Precision of the matrix products.")
@click.option("--seed", type=int, help="Seed of all random choices.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "mps"]), default="cpu", show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads; by default 1, and all of them from 256 units on. Part of the run, as is --device.",
)
def train(
    text: Path, output: Path, recipe_name: str, device: str, threads: int | None, *, as_bytes: bool, **settings: Any
) -> None:
    """Train an Elman, GRU or LSTM network on TEXT, any UTF-8 file of any size.

    The network with the best validation loss is kept; the last tenth of the text validates.
    Ctrl-C saves and stops; the same command then resumes. With --epochs, the same --threads and the same --device it
    ends exactly as an uninterrupted run; with --minutes the speed of the machine decides how much is learnt.

    \b
    Examples:
      python -m elman_export train my.txt -o runs/mine --cell gru --hidden-size 256 --epochs 8
      python -m elman_export train any.bin -o runs/any --bytes --minutes 30 --patience 5
    """  # noqa: D301  # click wants the character itself
    if as_bytes:
        settings["vocabulary"] = "bytes"
    recipe = load_recipe(recipe_name, _given(settings))
    _check_device(device)
    check_folder(output, MIN_FREE_BYTES)
    torch.set_num_threads(threads or (os.cpu_count() or 1 if recipe.hidden_size >= MIN_SIZE_FOR_THREADS else 1))
    run = Run(recipe, read_corpus(text, as_bytes=recipe.vocabulary == "bytes"), output, device)
    click.echo(run.describe())
    console = Console()
    with (
        _first_signal() as received,
        LiveProgress(console, run) if console.is_terminal else PlainProgress() as progress,
    ):
        _go(run, progress, received, output)
    if not run.is_finished:
        click.echo(f"Stopped and saved in {output}. Run the same command again to continue.")
        sys.exit(SIGNALLED + received[0])
    if run.is_exhausted:
        click.echo(f"Ended early: no improvement since epoch {run.best.epoch:.3g}.")
    loss = run.finish()
    click.echo(
        f"Validation: {loss.nats:.4f} ± {loss.standard_error:.4f} nats per character, streaming. Saved in {output}."
    )


def _go(run: Run, display: Display, received: list[int], output: Path) -> None:
    try:
        run.go(display, lambda: bool(received))
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {error.filename or output}: {error.strerror}. The last checkpoint is whole: make space, "
            "and run the same command again to continue."
        ) from error


def _check_device(device: str) -> None:
    is_there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_there[device]:
        raise ExportError(f"This machine or this build of torch does not support {device}: use --device cpu.")


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; --minutes and --epochs replace each other."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "minutes" in given:
        given.setdefault("epochs", 0.0)
    if "epochs" in given:
        given.setdefault("minutes", 0.0)
    return given


@contextmanager
def _first_signal() -> Iterator[list[int]]:
    """A list to which the first Ctrl-C or SIGTERM is appended; the second one ends the process at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _: object) -> None:
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield received
    finally:
        restore()
