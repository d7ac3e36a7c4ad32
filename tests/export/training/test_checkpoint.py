"""Checkpoints: what is written comes back, and what is damaged is refused."""

import json
from pathlib import Path

import pytest
import torch

from elman_export.errors import CheckpointError
from elman_export.training.checkpoint import (
    CheckpointConfig,
    load_checkpoint,
    load_training,
    save_checkpoint,
    save_training,
)
from elman_export.training.model import CharModel, ModelConfig

CONFIG = CheckpointConfig(
    ModelConfig("lstm", ("a", "b"), 2, 3, 4), {"seed": 1}, ({"protocol": "streaming", "nats_per_character": 1.5},)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a whole checkpoint."""
    save_checkpoint(tmp_path / "new" / "folder", make_model(), CONFIG)
    return tmp_path / "new" / "folder"


def make_model() -> CharModel:
    """A small network, always the same."""
    model = CharModel(CONFIG.model)
    model.initialise(torch.Generator().manual_seed(0))
    return model


def test_a_network_comes_back(folder: Path):
    """Weights and description survive the way to disk bit for bit, and nothing else is left there."""
    model, config = load_checkpoint(folder)
    assert config == CONFIG
    for name, tensor in make_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_bytes_have_a_word_of_their_own(tmp_path: Path):
    """A byte-level network is described by "bytes", not by 256 symbols."""
    config = CheckpointConfig(ModelConfig("elman", None, 1, 2, 0))
    save_checkpoint(tmp_path, CharModel(config.model), config)
    assert json.loads((tmp_path / "config.json").read_text())["vocabulary"] == "bytes"
    assert load_checkpoint(tmp_path)[1] == config


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("size", [None, 0, 1, 40])
def test_a_cut_file_is_refused(folder: Path, name: str, size: int | None):
    """A missing or truncated file gives a sentence that names it."""
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if size is not None:
        path.write_bytes(content[:size])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"cell": "minlstm"},
        {"hidden_size": "many"},
        {"hidden_size": 10**12},  # refused by comparing, not by allocating
        {"num_layers": 1},
        {"vocabulary": 3},
        {"vocabulary": ["a", "b", "c"]},
        {"recipe": None},
    ],
)
def test_a_description_that_does_not_fit_is_refused(folder: Path, change: dict[str, object]):
    """Other formats, garbled fields and sizes that the weights do not have are told apart from a checkpoint."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


def test_a_run_comes_back(tmp_path: Path):
    """Tensors and position survive; a folder without a run has none."""
    assert load_training(tmp_path) is None
    save_training(tmp_path, {"a": torch.arange(3)}, {"step": 0.1})
    saved = load_training(tmp_path)
    assert saved is not None
    assert (saved[0]["a"].tolist(), saved[1]) == ([0, 1, 2], {"step": 0.1})


def test_a_foreign_run_is_refused(folder: Path):
    """A safetensors file of somebody else is not taken for a run."""
    (folder / "model.safetensors").rename(folder / "training.safetensors")
    with pytest.raises(CheckpointError, match="not written by this trainer"):
        load_training(folder)
