"""Artefacts from checkpoints of the known cells, and the sources to compare them with."""

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.artefact import Artefact
from elman_export.exporting.cells import StepGraphs
from elman_export.exporting.reference import Step, reference_step
from elman_export.exporting.torch_step import torch_step
from elman_export.training.checkpoint import CheckpointConfig
from elman_export.training.model import CharModel
from elman_format import Metadata


def export_checkpoint(model: CharModel, config: CheckpointConfig, name: str, version: str) -> Artefact:
    """Build the step and the prefill graph of a trained network.

    Raises:
        ArtefactError: The name or version is not allowed.
    """
    weights = _weights(model)
    graphs = StepGraphs(config.model.cell, weights)
    metadata = Metadata(
        name=name,
        version=version,
        vocabulary=config.model.vocabulary,
        cell=config.model.cell,
        num_layers=config.model.num_layers,
        hidden_size=config.model.hidden_size,
        num_parameters=sum(array.size for array in weights.values()),
        recipe=config.recipe,
        evaluation=config.evaluation,
    )
    return Artefact.build(graphs.step(), metadata, graphs.prefill())


def checkpoint_steps(model: CharModel) -> dict[str, Step]:
    """The same network in two forms: PyTorch, and NumPy from the equations."""
    return {
        "PyTorch": torch_step(model),
        "NumPy, float64": reference_step(model.config.cell, _weights(model)),
    }


def _weights(model: CharModel) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
