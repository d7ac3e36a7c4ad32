"""Weights that others saved."""

import logging
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from elman_export import CheckpointError, load_state_dict


def network(seed: int = 0) -> nn.Module:
    """A small network."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def is_loaded(source: object) -> bool:
    """Whether weights lead from another network to the first."""
    module = network(1)
    load_state_dict(module, source)  # type: ignore[arg-type]  # whatever the test gives
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), network().parameters(), strict=True))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod."])
def test_prefixes_are_removed(prefix: str):
    """Of DataParallel, torch.compile and Lightning, one inside the other."""
    assert is_loaded({f"{prefix}{name}": part for name, part in network().state_dict().items()})


def test_a_compiled_part_is_found():
    """Where a part of the network was compiled, the prefix is inside the name."""
    assert is_loaded({name.replace("0.", "0._orig_mod."): part for name, part in network().state_dict().items()})


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_is_searched(key: str, tmp_path: Path):
    """What a training program saved beside the weights is left aside, the loss's own weights too."""
    weights = {f"model.{name}": part for name, part in network().state_dict().items()}
    torch.save({key: weights | {"loss.weight": torch.ones(2)}, "epoch": 3}, tmp_path / "last.ckpt")
    assert is_loaded(tmp_path / "last.ckpt")


def test_files_of_both_kinds_are_read(tmp_path: Path):
    """Safetensors and torch.save, by path or by name."""
    torch.save(network().state_dict(), tmp_path / "a.pt")
    safetensors.torch.save_file(network().state_dict(), tmp_path / "a.safetensors")
    assert is_loaded(tmp_path / "a.pt")
    assert is_loaded(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_converted_with_a_note(dtype: torch.dtype, caplog):
    """The module stays float32, and a line says what was done."""
    module = network(1)
    with caplog.at_level(logging.WARNING):
        load_state_dict(module, {name: part.to(dtype) for name, part in network().state_dict().items()})
    assert {part.dtype for part in module.parameters()} == {torch.float32}
    assert f"The weights are {dtype}: they are converted to float32." in caplog.text


def test_every_missing_and_unexpected_key_is_named():
    """All of torch's error is shown, not its first line."""
    weights = network().state_dict()
    del weights["0.bias"]
    weights["2.bias"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as refused:
        load_state_dict(network(), weights)
    assert 'Missing key(s) in state_dict: "0.bias"' in str(refused.value)
    assert 'Unexpected key(s) in state_dict: "2.bias"' in str(refused.value)


def test_a_pickled_module_is_refused_with_its_cure(tmp_path: Path):
    """No code of the file is run; the two lines that make a state_dict are shown."""
    torch.save(network(), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError) as refused:
        load_state_dict(network(), tmp_path / "whole.pt")
    assert 'model = torch.load("whole.pt", weights_only=False)' in str(refused.value)
    assert 'torch.save(model.state_dict(), "whole-weights.pt")' in str(refused.value)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "missing.pt"])
def test_what_is_no_file_of_weights_is_refused(name: str, tmp_path: Path):
    """The error names the file."""
    (tmp_path / "a.pt").write_bytes(b"no weights")
    (tmp_path / "a.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=name):
        load_state_dict(network(), tmp_path / name)


@pytest.mark.parametrize("source", [{"epoch": 1}, {}, {"state_dict": [1]}])
def test_a_file_without_a_state_dict_is_refused(source: dict[str, object]):
    """The sentence says what was found instead."""
    with pytest.raises(CheckpointError, match="There is no state_dict"):
        load_state_dict(network(), source)
