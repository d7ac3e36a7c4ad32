"""PyTorch modules as steps over NumPy arrays."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import nn

from elman_export.artefacts.runtime import Array
from elman_export.errors import ModuleError
from elman_export.exporting.reference import Step

_MAX_REASON = 1000  # characters of another program's error in a message


def torch_step(module: nn.Module, dtype: DTypeLike = np.float32) -> Step:
    """A module as a step over NumPy arrays, in evaluation mode.

    Args:
        module: With forward(char [B], *state [B, ...]) -> (logits [B, V], *next_state).
        dtype: Of its weights and states.

    Raises:
        ModuleError: From the step, when the module fails.
    """
    module.eval()

    @torch.inference_mode()
    def run(char: NDArray[np.int64], state: Sequence[Array]) -> tuple[Array, list[Array]]:
        # Copies: module and caller must not change each other's arrays.
        inputs = [torch.tensor(char), *(torch.tensor(part.astype(dtype)) for part in state)]
        try:
            logits, *after = module(*inputs)
        except Exception as error:  # the user's code may raise anything
            raise ModuleError(
                f"forward failed with {reason(error)} for {len(char)} rows: it must accept any number."
            ) from error
        return logits.numpy(), [part.numpy() for part in after]

    return run


def reason(error: BaseException) -> str:
    """An error of another program for a message: its type and all of its text, in one line."""
    return f"{type(error).__name__} ({' '.join(str(error).split())[:_MAX_REASON]})"
