"""The display of a run: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from elman_export.training.run import Row, Run

SAMPLE_LENGTH = 160  # characters
SAMPLE_SECONDS = 3.0  # between two samples; each costs a few hundredths of that
SMOOTHING = 0.98  # of the displayed loss: single sequences vary


class PlainProgress:
    """One line for each epoch, for logs and pipes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_step(self, run: Run, loss: float) -> None:
        """Print nothing for single sequences."""

    def on_row(self, run: Run, row: Row) -> None:
        """Print the losses of the epoch and a sample."""
        click.echo(_describe(row, run))
        click.echo(f"  {run.sample(SAMPLE_LENGTH)!r}")


class LiveProgress:
    """A bar with the time left, the loss, and a sample of the text."""

    def __init__(self, console: Console, run: Run) -> None:
        self._bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            console=console,
        )
        self._task = self._bar.add_task("", total=1.0, loss=math.nan)
        self._bar.update(self._task, completed=run.trainer.progress)
        self._live = Live(self._bar, console=console)
        self._loss: float | None = None
        self._sampled = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._live.stop()

    def on_step(self, run: Run, loss: float) -> None:
        """Move the bar and regularly refresh the sample."""
        self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        self._bar.update(self._task, completed=run.trainer.progress, loss=self._loss)
        if time.monotonic() - self._sampled > SAMPLE_SECONDS:
            sample = Panel(Text(_printable(run.sample(SAMPLE_LENGTH))), title="a sample", height=10)
            self._live.update(Group(sample, self._bar))
            self._sampled = time.monotonic()

    def on_row(self, run: Run, row: Row) -> None:
        """Print a line above the bar."""
        self._live.console.print(_describe(row, run))


def _printable(text: str) -> str:
    """A text without what a terminal would obey instead of show."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{MIDDLE DOT}" for char in text)


def _describe(row: Row, run: Run) -> str:
    """One line about an epoch, with the time left."""
    progress = run.trainer.progress
    left = row.seconds * (1 / progress - 1)
    return (
        f"epoch {row.epoch:.3g}  {progress:4.0%}  {row.seconds:.0f} s, {left:.0f} s left  "
        f"training {row.training_loss:.4f}  validation {row.validation_loss:.4f} nats/character"
    )
