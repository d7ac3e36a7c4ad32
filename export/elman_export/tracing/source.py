"""A user's module, from `package.module:function`."""

import copy
import importlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elman_export.errors import ModuleError
from elman_export.exporting.reference import Step
from elman_export.exporting.torch_step import reason, torch_step
from elman_export.tracing.diagnosis import check_kind, check_repeats, place
from elman_export.tracing.signature import (
    NUM_ROWS,
    Adapter,
    Signature,
    describe,
    find_signature,
    leaves,
    rows,
    signatures,
)

_LOG = logging.getLogger("elman_export")
_NARROW = (torch.float16, torch.bfloat16)
_FLOATS = (torch.float32, torch.complex64)


@dataclass(frozen=True, slots=True)
class Source:
    """A user's module and its initial state of one row.

    Attributes:
        module: As the user gave it.
        template: The state as the user gave it: tensors in tuples, lists or dicts.
        signature: How the module is called.
    """

    module: nn.Module
    template: Any
    signature: Signature

    @classmethod
    def of(cls, result: Any) -> "Source":
        """Check what a user's function returned, and find how the module is called.

        Raises:
            ModuleError: It is not (module, state).
        """
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], nn.Module):  # noqa: PLR2004
            raise ModuleError(f"Got {describe(result)}: return (module, state), an nn.Module and its initial state.")
        module, state = result
        try:
            parts = leaves(state)
        except TypeError as error:
            raise ModuleError(f"The state {error}: it must consist of tensors.") from error
        if not parts:
            raise ModuleError(f"Got {describe(module)} with 0 states: return at least one tensor of state.")
        module, state = _widened(module, state)
        for index, part in enumerate(leaves(state)):
            if part.dtype not in _FLOATS or not signatures(part):
                raise ModuleError(
                    f"state[{index}] is {describe(part)}: it must be float32 [1, ...], one row, or [layers, 1, ...]."
                )
            if part.is_complex():
                _LOG.warning("state[%d] is complex64: each number of it is kept as two float32 numbers.", index)
        check_kind(module)
        module.eval()
        source = cls(module, state, find_signature(module, state))
        check_repeats(module, source.step, source.example(NUM_ROWS))
        return source

    @property
    def step(self) -> nn.Module:
        """The module as forward(char [B], *state [B, ...]) -> (logits [B, V], *next_state)."""
        return Adapter(self.module, self.template, self.signature)

    def example(self, num_rows: int) -> tuple[Tensor, ...]:
        """Characters [B] and the initial states [B, ...]: what a step reads."""
        return torch.zeros(num_rows, dtype=torch.int64), *rows(self.template, self.signature, num_rows)

    @property
    def state(self) -> tuple[Tensor, ...]:
        """The initial state, one row each: [1, ...]."""
        return rows(self.template, self.signature, 1)


def load_source(target: str) -> Source:
    """Call the function that `package.module:function` names; the current folder is importable.

    Raises:
        ModuleError: It cannot be imported, fails, or does not return (module, state).
    """
    file, _, function = target.partition(":")
    if not file or not function:
        raise ModuleError(f"{target!r} names no function: write it as my_package.my_file:build.")
    if str(Path.cwd()) not in sys.path:  # `python -m` adds it, the installed command does not
        sys.path.insert(0, str(Path.cwd()))
    try:
        result = getattr(importlib.import_module(file), function)()
    except Exception as error:  # the user's code may raise anything
        raise ModuleError(f"{target} failed with {reason(error)}{place(error)}: correct that first.") from error
    return Source.of(result)


def module_steps(source: Source) -> dict[str, Step]:
    """The sources for comparison with an artefact of this module: in float64 as well, if the module allows it."""
    steps = {"PyTorch": torch_step(source.step)}
    wide = torch_step(Adapter(copy.deepcopy(source.module).double(), source.template, source.signature), np.float64)
    char, *state = (part.numpy() for part in source.example(1))
    try:
        logits, _ = wide(char, state)
    except ModuleError:  # it fixes float32 somewhere
        return steps
    return {**steps, "PyTorch, float64": wide} if logits.dtype == np.float64 else steps


def _widened(module: nn.Module, state: Any) -> tuple[nn.Module, Any]:
    """Module and state in float32 on the CPU, with a note if they were in 16 bits or elsewhere."""
    tensors = [*module.parameters(), *module.buffers(), *leaves(state)]
    narrow = sorted({str(tensor.dtype) for tensor in tensors if tensor.dtype in _NARROW})
    devices = sorted({tensor.device.type for tensor in tensors} - {"cpu", "meta"})
    if not narrow and not devices:
        return module, state
    _LOG.warning("The module is %s: it is converted to float32 on the CPU.", ", ".join([*narrow, *devices]))
    return module.float().cpu(), _float(state)


def _float(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.cpu().float() if tree.dtype in _NARROW else tree.cpu()
    if isinstance(tree, dict):
        return {key: _float(part) for key, part in tree.items()}
    parts = [_float(part) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
