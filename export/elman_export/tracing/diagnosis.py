"""What is wrong with a module, found by trial: state of its own, noise, a place that fixes the number of rows."""

import logging
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from elman_export.errors import ModuleError

SHAPES = logging.getLogger("torch.fx.experimental.symbolic_shapes")
_LIBRARIES = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "site-packages", "dist-packages")


def check_kind(module: nn.Module) -> None:
    """Refuse what no step can be.

    Raises:
        ModuleError: It was compiled by torch.jit, or reads backwards.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ModuleError(
                f"{name or 'The module'} was compiled by torch.jit, which fixes what it computes: return the nn.Module "
                "that it was made from, with its weights."
            )
        if isinstance(part, nn.RNNBase) and part.bidirectional:
            raise ModuleError(
                f"{name or 'The module'} is bidirectional: it reads the characters that follow, which a step does not "
                "know. Train it in one direction."
            )


def check_repeats(module: nn.Module, step: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Run a step twice on the same inputs; a step that fails is found later.

    Args:
        module: The user's, whose attributes are observed.
        step: The same behind the convention.
        inputs: Characters and states.

    Raises:
        ModuleError: The results differ: the module keeps a state of its own, or adds noise.
    """
    try:
        with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
            _, *moved = step(*inputs)  # noise may be a factor, and the first state zero
            first, before = step(inputs[0], *moved), dict(_own_tensors(module))
            second, after = step(inputs[0], *moved), dict(_own_tensors(module))
    except Exception:  # noqa: BLE001  the user's code may raise anything
        return
    if all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True)):
        return
    changed = [name for name, value in after.items() if value is not before.get(name)]
    if changed:
        raise ModuleError(
            f"The module keeps a state of its own in {', '.join(changed)}: a server steps many texts with one module. "
            "Take it as an argument of forward, return the next one, and return the first one from build."
        )
    raise ModuleError(
        "The module returns different results for the same character and state: it must depend on these alone. Remove "
        "noise and counters; dropout is nn.Dropout, or functional.dropout with training=self.training."
    )


def place(error: BaseException) -> str:
    """Where in the user's own code an error was raised, for a message; empty if nowhere."""
    return _last(traceback.extract_tb(error.__traceback__))


class Specializations(logging.Handler):
    """Notes where the user's code fixes a size, while torch traces a module with a free one.

    Args:
        size: The size in the trace.

    Attributes:
        place: The first place, for a message; empty: none.
    """

    def __init__(self, size: int) -> None:
        super().__init__(logging.DEBUG)
        self._mark = f", {size}) [guard added]"
        self.place = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Look where torch is when it adds the guard."""
        if not self.place and self._mark in record.getMessage():
            self.place = _last(traceback.extract_stack())

    def __enter__(self) -> Self:
        self._before = SHAPES.handlers, SHAPES.level, SHAPES.propagate, logging.root.manager.disable
        SHAPES.handlers, SHAPES.propagate = [self], False
        SHAPES.setLevel(logging.INFO)
        logging.disable(logging.NOTSET)
        return self

    def __exit__(self, *_: object) -> None:
        SHAPES.handlers, level, SHAPES.propagate, disabled = self._before
        SHAPES.setLevel(level)
        logging.disable(disabled)


def _last(frames: Sequence[traceback.FrameSummary]) -> str:
    own = [frame for frame in frames if not frame.filename.startswith("<") and not _is_library(frame.filename)]
    return f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def _is_library(filename: str) -> bool:
    return any(part in filename for part in _LIBRARIES)


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, object]]:
    """Attributes and buffers that are or hold tensors, by name; none of the parameters."""
    for path, part in module.named_modules():
        for name, value in [*vars(part).items(), *part.named_buffers(recurse=False)]:
            if isinstance(value, Tensor | tuple):
                yield f"{path}.{name}".lstrip("."), value
