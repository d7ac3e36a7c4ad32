"""A recipe: everything that determines the result of a training run, except the text."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from elman_export.errors import ExportError
from elman_export.training.model import Cell, ModelConfig
from elman_export.training.recurrence import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

Symbols = Literal["characters", "bytes"]
LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (0, 100_000),
    "minutes": (0, 100_000),
    "streams": (1, 4096),
    "length": (1, 4096),
    "length_jitter": (0, 4095),
    "reset_rate": (0, 1),
    "learning_rate": (0, 1),
    "final_learning_rate": (0, 1),
    "beta1": (0, 0.9999),
    "beta2": (0, 0.9999),
    "weight_decay": (0, 10),
    "max_gradient_norm": (1e-6, 1e6),
    "averaging": (0, 0.99999),
    "embedding_dropout": (0, 0.95),
    "hidden_dropout": (0, 0.95),
    "recurrent_dropout": (0, 0.95),
    "held_back": (0, 0.5),
    "patience": (0, 100_000),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Recipe:
    """Settings of one run; a TOML recipe sets any of them, these are the defaults.

    Raises:
        ExportError: A value is of the wrong type or out of range; it names value and range.
    """

    vocabulary: Symbols = "characters"
    cell: Cell = "gru"
    num_layers: int = 1
    hidden_size: int = 512
    embedding_size: int = 128  # 0: one-hot

    # How long: whichever is above 0, exactly one of the two.
    epochs: float = 10.0  # times through the text
    minutes: float = 0.0  # of training, without the pauses between runs

    # Truncated back-propagation through time: `streams` places of the text are read side by side
    # and their state is carried from one sequence to the next, gradients are not.
    streams: int = 64
    length: int = 64  # characters a sequence, on average
    length_jitter: int = 8  # plus or minus, so that the cuts fall elsewhere every time
    reset_rate: float = 0.02  # chance that a stream starts a sequence from zeros, as a session does

    learning_rate: float = 0.002  # AdamW, falls linearly
    final_learning_rate: float = 0.02  # as a part of learning_rate
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.02  # on matrices only
    max_gradient_norm: float = 1.0  # longer gradients are cut to this
    averaging: float = 0.998  # of the exponential average of the weights, which is what is saved

    embedding_dropout: float = 0.1  # one mask for a whole sequence, as are the next two
    hidden_dropout: float = 0.35  # after every layer
    recurrent_dropout: float = 0.15  # of the entries of W_hh (DropConnect)

    held_back: float = 0.02  # part of the training text that fits the logit scale; 0: no scale
    patience: int = 0  # epochs without a better validation loss after which the run ends early; 0: it never does
    precision: Precision = "float32"  # of the matrix products; bfloat16 is twice as fast where the CPU has it
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise ExportError(f"{name} must lie between {low} and {high}, got {value}.")
        choices = {"vocabulary": get_args(Symbols), "precision": get_args(Precision)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ExportError(f"{name} is {' or '.join(allowed)}, not {getattr(self, name)!r}.")
        if (self.epochs > 0) == (self.minutes > 0):
            raise ExportError("Exactly one of epochs and minutes must be above 0.")
        if self.length_jitter >= self.length:
            raise ExportError("length_jitter must be smaller than length.")
        if self.embedding_dropout and not self.embedding_size:
            raise ExportError("embedding_dropout needs an embedding: set embedding_size or drop it.")
        self.model_config(())

    def _check_types(self) -> None:
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if type(default) is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))  # TOML's 1 for 1.0
            elif type(value) is not type(default):
                kind = type(default).__name__
                raise ExportError(f"{field.name} must be of type {kind}, got {value!r}.")

    def model_config(self, vocabulary: tuple[str, ...] | None) -> ModelConfig:
        """The network that this recipe trains over a vocabulary."""
        return ModelConfig(self.cell, vocabulary, self.num_layers, self.hidden_size, self.embedding_size)


def load_recipe(name_or_file: str, overrides: Mapping[str, Any]) -> Recipe:
    """Read a recipe of this package by name (``shakespeare``), or a TOML file, and override it.

    Raises:
        ExportError: There is no such recipe, it is not TOML, or a key or value is unknown.
    """
    bundled = resources.files("elman_export") / "recipes" / f"{name_or_file}.toml"
    source = bundled if bundled.is_file() else Path(name_or_file)
    try:
        settings = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(
            f"There is no recipe {name_or_file!r}: name a TOML file or one of {bundled_recipes()}."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExportError(f"The recipe {name_or_file} is not TOML: {error}.") from error
    unknown = sorted(settings.keys() - asdict(Recipe()).keys())
    if unknown:
        raise ExportError(f"The recipe {name_or_file} has unknown keys: {', '.join(unknown)}.")
    return Recipe(**{**settings, **overrides})


def bundled_recipes() -> str:
    """The names of the recipes in the package, for a message."""
    folder = resources.files("elman_export") / "recipes"
    return ", ".join(sorted(item.name.removesuffix(".toml") for item in folder.iterdir()))
