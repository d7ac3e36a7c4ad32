"""Loading weights that others saved: prefixes, 16 bits and other devices are no obstacle."""

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from elman_export.errors import CheckpointError

_LOG = logging.getLogger("elman_export")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
_NESTED = ("state_dict", "model_state_dict", "model", "weights")  # where training programs keep the weights
_NARROW = (torch.float16, torch.bfloat16)


def load_state_dict(module: nn.Module, source: Path | str | Mapping[str, Any]) -> None:
    """Load weights into a module.

    Prefixes of DataParallel (`module.`), torch.compile (`_orig_mod.`) and Lightning (`model.`) are removed, 16-bit
    weights are converted, and a training checkpoint is searched for its state_dict.

    Args:
        module: Of the architecture that the weights are of.
        source: A `.safetensors` file, a file of `torch.save`, or a state_dict.

    Raises:
        CheckpointError: The file cannot be read without running code in it, or the weights are of another architecture.
    """
    loaded = source if isinstance(source, Mapping) else _read(Path(source))
    weights = _without_prefixes(_find(loaded), set(module.state_dict()))
    narrow = sorted({str(tensor.dtype) for tensor in weights.values() if tensor.dtype in _NARROW})
    if narrow:
        _LOG.warning("The weights are %s: they are converted to float32.", ", ".join(narrow))
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:  # names every missing and unexpected key
        raise CheckpointError(f"{error}\nBuild the module with the sizes that it was trained with.") from error


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickled Python object, not a state_dict; loading it could run any code. In the program that "
            f'made it:\n    model = torch.load("{path.name}", weights_only=False)\n'
            f'    torch.save(model.state_dict(), "{path.stem}-weights.pt")'
        ) from error
    except Exception as error:  # a file that is cut or of another kind raises what it likes
        raise CheckpointError(f"{path} is not a file of weights: {error}") from error


def _find(loaded: Any) -> Mapping[str, Tensor]:
    """The state_dict inside what a training program saved."""
    if isinstance(loaded, Mapping):
        if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
            return loaded
        for key in _NESTED:
            if isinstance(loaded.get(key), Mapping):
                return _find(loaded[key])
        raise CheckpointError(f"There is no state_dict among {', '.join(map(str, loaded))[:200]}: give the state_dict.")
    raise CheckpointError(f"The weights are a {type(loaded).__name__}: give model.state_dict().")


def _without_prefixes(weights: Mapping[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """The weights under the module's own names, if removing prefixes leads to them."""
    names = {name: name for name in weights}  # as saved to as expected
    while not expected & set(names.values()):
        prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in names.values())), None)
        if prefix is None:
            break
        names = {saved: name.removeprefix(prefix) for saved, name in names.items() if name.startswith(prefix)}
    if not expected <= set(names.values()):  # a compiled part inside
        names = {saved: name.replace("_orig_mod.", "") for saved, name in names.items()}
    return {name: weights[saved] for saved, name in names.items()}
