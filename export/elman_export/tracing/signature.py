"""How a module takes characters and states, and the adapter that gives every module one signature.

The convention is forward(char [B], *state [B, ...]) -> (logits [B, V], *next_state). Most modules differ a little: they
read [B, T] or [T, B], keep PyTorch's states [layers, B, hidden], or take and return one nested state. The signature is
found by trial with several rows.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

NUM_ROWS = 3  # of a trial: torch specialises on 0 and 1

Chars = Literal["[B]", "[B, 1]", "[1, B]"]


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a module.

    Attributes:
        chars: The shape of the characters that it reads.
        axes: The batch axis of each tensor of the state.
        is_spread: Whether the state's parts are arguments of their own.
    """

    chars: Chars
    axes: tuple[int, ...]
    is_spread: bool


class Adapter(nn.Module):
    """A module behind the convention: forward(char [B], *state [B, ...]) -> (logits [B, V], *next_state [B, ...]).

    Args:
        module: The user's.
        template: The state as the user gave it, for its structure.
        signature: How the module is called.
    """

    def __init__(self, module: nn.Module, template: Any, signature: Signature) -> None:
        super().__init__()
        self.module, self._template, self._layout = module, template, signature

    def forward(self, char: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step; whatever the module raises."""
        signature = self._layout
        kinds = [part.is_complex() for part in leaves(self._template)]
        own = [torch.complex(*row.unbind(-1)) if kind else row for row, kind in zip(state, kinds, strict=True)]
        parts = [
            row.movedim(0, axis).contiguous() if axis else row for row, axis in zip(own, signature.axes, strict=True)
        ]
        tree = rebuild(self._template, iter(parts))
        chars = {"[B]": char, "[B, 1]": char[:, None], "[1, B]": char[None]}[signature.chars]
        result = self.module(chars, *tree) if signature.is_spread else self.module(chars, tree)
        if not isinstance(result, tuple | list) or not result or not isinstance(result[0], Tensor):
            raise TypeError(f"forward returned {describe(result)}")
        after = leaves_like(self._template, result[1:])
        return _rows(result[0], signature.chars), *(
            _real(part.movedim(axis, 0)) for part, axis in zip(after, signature.axes, strict=True)
        )


def signatures(template: Any) -> list[Signature]:
    """The signatures that a state allows, the convention first; empty if a part has no batch axis of one row."""
    parts = leaves(template)
    by_axis = [_axes(parts, first) for first in (0, 1)]
    spreads = (True, False) if isinstance(template, tuple) else (False,)
    found = product(dict.fromkeys(axes for axes in by_axis if axes is not None), _CHARS, spreads)
    return [Signature(chars, axes, is_spread) for axes, chars, is_spread in found]


def find_signature(module: nn.Module, template: Any) -> Signature:
    """The first signature by which the module works for several rows; the first of all if none does."""
    candidates = signatures(template)
    return next((signature for signature in candidates if _works(module, template, signature)), candidates[0])


def rows(template: Any, signature: Signature, num_rows: int) -> tuple[Tensor, ...]:
    """The state of ``num_rows`` equal rows, batch first; a complex number is two, its parts."""
    first = (_real(part.detach()).movedim(axis, 0) for part, axis in zip(leaves(template), signature.axes, strict=True))
    return tuple(part.repeat(num_rows, *(1 for _ in part.shape[1:])) for part in first)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of nested tuples, lists and dicts, in their order.

    Raises:
        TypeError: Something else is in them.
    """
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in leaves(part)]
    raise TypeError(f"holds {describe(tree)}")


def rebuild(template: Any, parts: Iterator[Tensor]) -> Any:
    """The template with other tensors."""
    if isinstance(template, Tensor):
        return next(parts)
    if isinstance(template, dict):
        return {key: rebuild(part, parts) for key, part in template.items()}
    filled = [rebuild(part, parts) for part in template]
    return type(template)(*filled) if hasattr(template, "_fields") else type(template)(filled)


def leaves_like(template: Any, returned: Sequence[Any]) -> list[Tensor]:
    """The tensors of what forward returned after the logits, in the template's order.

    Raises:
        TypeError: The structure is another one.
    """
    try:
        return _matching(template, returned)
    except TypeError:
        if len(returned) != 1:
            raise
        return _matching(template, returned[0])  # one nested state


def describe(value: Any) -> str:
    """A value for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__


_CHARS: tuple[Chars, ...] = ("[B]", "[B, 1]", "[1, B]")


def _matching(template: Any, value: Any) -> list[Tensor]:
    if isinstance(template, Tensor):
        if not isinstance(value, Tensor):
            raise TypeError(f"forward returned {describe(value)} in the place of a state")
        return [value]
    if isinstance(template, dict):
        if not isinstance(value, dict) or value.keys() != template.keys():
            raise TypeError("forward returned a state of other keys")
        return [leaf for key, part in template.items() for leaf in _matching(part, value[key])]
    if not isinstance(value, tuple | list) or len(value) != len(template):
        raise TypeError(f"forward returned {describe(value)} in the place of {describe(template)}")
    return [leaf for part, own in zip(template, value, strict=True) for leaf in _matching(part, own)]


def _axes(parts: Sequence[Tensor], first: int) -> tuple[int, ...] | None:
    """The batch axis of each part: `first` where that has one row, else the other; None if one has neither."""
    axes = []
    for part in parts:
        found = [axis for axis in (first, 0) if axis < part.dim() and part.shape[axis] == 1]
        if not found:
            return None
        axes.append(found[0])
    return tuple(axes)


def _real(part: Tensor) -> Tensor:
    return torch.stack([part.real, part.imag], -1) if part.is_complex() else part


def _rows(logits: Tensor, chars: Chars) -> Tensor:
    """Logits [B, V] of logits with a time axis."""
    if logits.dim() != 3 or chars == "[B]":  # noqa: PLR2004  [B, 1, V] or [1, B, V]
        return logits
    return logits[:, 0] if chars == "[B, 1]" else logits[0]


def _works(module: nn.Module, template: Any, signature: Signature) -> bool:
    state = rows(template, signature, NUM_ROWS)
    try:
        with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
            logits, *after = Adapter(module, template, signature)(torch.zeros(NUM_ROWS, dtype=torch.int64), *state)
    except Exception:  # noqa: BLE001  the user's code may raise anything; another signature may fit
        return False
    is_row = logits.dim() == 2 and len(logits) == NUM_ROWS  # noqa: PLR2004  [B, V]
    return is_row and [part.shape for part in after] == [part.shape for part in state]
