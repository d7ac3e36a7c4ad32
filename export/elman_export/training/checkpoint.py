"""A checkpoint: a folder with weights, their description, and the progress of training.

``model.safetensors`` (the averaged weights) and ``config.json`` are the network;
``training.safetensors`` is what a run needs to resume exactly where it stopped.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import save

from elman_export.errors import CheckpointError, ExportError
from elman_export.training.model import CharModel, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT = 1
MODEL, CONFIG, TRAINING = "model.safetensors", "config.json", "training.safetensors"


@dataclass(frozen=True)
class CheckpointConfig:
    """The contents of ``config.json`` except the format."""

    model: ModelConfig
    recipe: Mapping[str, Any] = field(default_factory=dict)  # settings, seed, corpus; {}: unknown
    evaluation: tuple[Mapping[str, Any], ...] = ()  # records as in the artefact


def save_checkpoint(directory: Path, model: CharModel, config: CheckpointConfig) -> None:
    """Write the network; a reader sees the old files or the new ones, never half a file."""
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / MODEL, save(_contiguous(model.state_dict())))
    shape = config.model
    document = {
        "format": FORMAT,
        "cell": shape.cell,
        "num_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "embedding_size": shape.embedding_size,
        "vocabulary": "bytes" if shape.vocabulary is None else list(shape.vocabulary),
        "recipe": dict(config.recipe),
        "evaluation": [dict(record) for record in config.evaluation],
    }
    _write(directory / CONFIG, (json.dumps(document, indent=2) + "\n").encode())


def load_checkpoint(directory: Path) -> tuple[CharModel, CheckpointConfig]:
    """Read a network back.

    Raises:
        CheckpointError: A file is missing, cut or of another format, or the two do not match.
    """
    config = _load_config(directory / CONFIG)
    tensors, _ = _load_tensors(directory / MODEL)
    try:
        with torch.device("meta"):  # nothing is allocated for sizes that the weights do not have
            model = CharModel(config.model)
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights in {directory / MODEL} do not match {CONFIG}: {error}. Train again."
        ) from error
    return model.float(), config


def save_training(directory: Path, tensors: Mapping[str, Tensor], position: object) -> None:
    """Write the progress of training: tensors, and a JSON value."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {"position": json.dumps(position)}
    _write(directory / TRAINING, save(_contiguous(tensors), metadata))


def load_training(directory: Path) -> tuple[dict[str, Tensor], Any] | None:
    """Read it back; None if there was no run.

    Raises:
        CheckpointError: The file is cut or foreign.
    """
    path = directory / TRAINING
    if not path.exists():
        return None
    tensors, metadata = _load_tensors(path)
    try:
        return tensors, json.loads(metadata["position"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} was not written by this trainer: choose another -o.") from error


def _load_config(path: Path) -> CheckpointConfig:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path.parent} holds no checkpoint: cannot read {path.name} ({error.strerror})."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: it was cut or overwritten. Train again.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT}, the only one that this release reads.")
    try:
        vocabulary = document["vocabulary"]
        model = ModelConfig(
            document["cell"],
            None if vocabulary == "bytes" else tuple(vocabulary),
            int(document["num_layers"]),
            int(document["hidden_size"]),
            int(document["embedding_size"]),
        )
        return CheckpointConfig(model, dict(document["recipe"]), tuple(document["evaluation"]))
    except (KeyError, TypeError, ValueError, ExportError) as error:
        raise CheckpointError(f"{path} lacks a field or has an invalid one ({error}). Train again.") from error


def _load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: it was cut.") from error


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _write(path: Path, content: bytes) -> None:
    """Atomically: to another name, to the disk, then under the real one."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
