"""A training run in a folder: resumed where it stopped, saved regularly, finished with a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from elman_export.errors import CheckpointError
from elman_export.evaluation.loss import Loss
from elman_export.training.checkpoint import (
    CheckpointConfig,
    load_checkpoint,
    load_training,
    save_checkpoint,
    save_training,
)
from elman_export.training.log import write_log
from elman_export.training.streaming_loss import QUICK_STREAMS, streaming_loss
from elman_export.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elman_export.evaluation.corpus import Corpus
    from elman_export.training.model import CharModel
    from elman_export.training.recipe import Recipe

MAX_ROW_STEPS = 5000  # between two rows of the log if an epoch is longer
MAX_VALIDATION = 1_000_000  # characters of the validation part for the record
MAX_QUICK_VALIDATION = 200_000  # and for every row
SAMPLE_SEED = 0  # fixed, so that samples differ only because the network does
SAMPLE_TEMPERATURE = 0.8


@dataclass(frozen=True)
class Row:
    """One line of the log; losses in nats per character."""

    epoch: float
    steps: int
    seconds: float
    cpu_seconds: float
    training_loss: float  # mean since the last row, under noise
    validation_loss: float  # of the averaged weights


class Display(Protocol):
    """An observer of a run."""

    def on_step(self, run: Run, loss: float) -> None:
        """A sequence was processed; its loss in nats per character."""

    def on_row(self, run: Run, row: Row) -> None:
        """An epoch, many steps or the run ended."""


class Run:
    """Trains into a folder; a folder that holds the same run already is continued.

    It then ends exactly as an unbroken run does; with a recipe of `minutes` it does not, because the clock decides how
    many steps there are.

    The network in the folder is the one with the best validation loss so far.

    Raises:
        ExportError: The folder holds another run or a damaged one, or the text is too short.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, directory: Path, device: str = "cpu") -> None:
        self.trainer = Trainer(recipe, corpus, device)
        self.rows: list[Row] = []
        self._corpus = corpus
        self._directory = directory
        self._losses: list[float] = []  # since the last row
        self._identity = {
            **asdict(recipe),
            "corpus_sha256": corpus.sha256,
            "corpus_characters": len(corpus.ids),
            "threads": torch.get_num_threads(),  # they decide in which order sums are added up
            "device": device,
        }
        saved = load_training(directory)
        if saved is not None:
            self._resume(*saved)

    @property
    def is_finished(self) -> bool:
        """Whether the run is complete or no longer improves."""
        return self.trainer.progress >= 1 or self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """Whether the validation loss did not improve for the recipe's `patience`."""
        patience = self.trainer.recipe.patience
        return bool(patience and self.rows) and self.rows[-1].epoch - self.best.epoch >= patience

    @property
    def best(self) -> Row:
        """The row with the lowest validation loss, the first of equals: its weights are kept."""
        return min(self.rows, key=lambda row: row.validation_loss)

    def describe(self) -> str:
        """One line about the run."""
        recipe, model = self.trainer.recipe, self.trainer.model
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return (
            f"{recipe.cell} {recipe.num_layers}x{recipe.hidden_size}, {parameters:,} parameters, "
            f"{model.config.vocabulary_size} symbols, on {len(self._corpus.training):,} characters; "
            f"{self.trainer.progress:.0%} done."
        )

    def go(self, display: Display, should_stop: Callable[[], bool]) -> None:
        """Train until the end or until `should_stop`; everything is saved in both cases.

        Raises:
            ExportError: The loss is not finite.
        """
        while not self.is_finished and not should_stop():
            loss = self.trainer.step()
            self._losses.append(loss)
            display.on_step(self, loss)
            if self.trainer.is_at_epoch or self.trainer.progress >= 1 or len(self._losses) >= MAX_ROW_STEPS:
                display.on_row(self, self._end_row())
        self._save_training()

    def finish(self) -> Loss:
        """Evaluate the best network and write it with its record; a finished run returns the saved record."""
        model, config = load_checkpoint(self._directory)
        if config.evaluation:
            (record,) = config.evaluation
            return Loss(record["nats_per_character"], record["standard_error"], record["num_characters"])
        loss = streaming_loss(model, self._corpus.validation[:MAX_VALIDATION])
        record = {
            "corpus_sha256": self._corpus.sha256,
            "protocol": "streaming",
            "nats_per_character": loss.nats,
            "standard_error": loss.standard_error,
            "num_characters": loss.num_characters,
        }
        self._save_model(model, (record,))
        return loss

    def sample(self, length: int) -> str:
        """A sample of the averaged network."""
        return write(self.trainer.average, length)

    def _end_row(self) -> Row:
        model = self.trainer.averaged()
        validation = streaming_loss(model, self._corpus.validation[:MAX_QUICK_VALIDATION], QUICK_STREAMS)
        training = sum(self._losses) / len(self._losses)
        trainer = self.trainer
        row = Row(trainer.epoch, trainer.num_steps, trainer.seconds, trainer.cpu_seconds, training, validation.nats)
        self.rows.append(row)
        self._losses.clear()
        if row is self.best:
            self._save_model(model, ())
        self._save_training()
        write_log(self._directory, [asdict(row) for row in self.rows])
        return row

    def _save_model(self, model: CharModel, evaluation: tuple[dict[str, Any], ...]) -> None:
        curve = [[row.epoch, row.training_loss, row.validation_loss] for row in self.rows]
        effort = {"seconds": self.rows[-1].seconds, "cpu_seconds": self.rows[-1].cpu_seconds, "curve": curve}
        config = CheckpointConfig(model.config, {**self._identity, "training": effort}, evaluation)
        save_checkpoint(self._directory, model.cpu(), config)

    def _save_training(self) -> None:
        tensors, position = self.trainer.capture()
        rows = [asdict(row) for row in self.rows]
        document = {"run": self._identity, "position": position, "rows": rows}
        save_training(self._directory, tensors, {**document, "losses": self._losses})

    def _resume(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        other = document["run"]
        differing = [key for key, value in self._identity.items() if value != other.get(key, value)]
        if differing:
            changes = ", ".join(f"{key} {other.get(key)} (now {self._identity[key]})" for key in differing)
            raise CheckpointError(
                f"{self._directory} holds another run, with {changes}. Repeat its settings to continue it, "
                "or choose another folder."
            )
        self.trainer.restore(tensors, document["position"])
        self.rows = [Row(**row) for row in document["rows"]]
        self._losses = document["losses"]


@torch.no_grad()
def write(model: CharModel, length: int) -> str:
    """Sample `length` symbols from zeros at a temperature of 0.8."""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    state = model.initial_state(1)
    char = torch.zeros(1, dtype=torch.int64, device=state[0].device)
    ids: list[int] = []
    for _ in range(length):
        logits, *after = model.step(char, *state)
        state = tuple(after)
        p = torch.softmax(logits.cpu() / SAMPLE_TEMPERATURE, dim=1)
        char = torch.multinomial(p, 1, generator=generator)[:, 0].to(char.device)
        ids.append(int(char))
    vocabulary = model.config.vocabulary
    if vocabulary is None:
        return bytes(ids).decode(errors="replace")
    return "".join(vocabulary[i] for i in ids)
