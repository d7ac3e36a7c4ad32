"""The recurrent product of a sequence, W_hh h + b_hh at every position, made quick to train.

Automatic differentiation would add up the gradient of W_hh position by position, a matrix as large
as W_hh each time. Here the positions only note what they saw, and one product at the end does it
all. The two layouts of W_hh are kept because each direction has one that is half as slow again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function

if TYPE_CHECKING:
    from torch import Tensor


class Recurrence:
    """Multiplies one sequence's hidden states, one position after the other.

    Args:
        weight: W_hh, ``[G*H, H]``.
        bias: b_hh, ``[G*H]``.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = weight.detach()
        self._transposed = self._weight.t().contiguous()
        self._bias = bias.detach()
        self.seen: list[tuple[Tensor, Tensor]] = []  # (h [B, H], the product's gradient [B, G*H])
        self._root: Tensor = _Root.apply(weight, bias, self)  # type: ignore[no-untyped-call]

    def __call__(self, h: Tensor) -> Tensor:
        """``[B, H]`` to ``[B, G*H]``."""
        product: Tensor = _Product.apply(h, self._root, self)  # type: ignore[no-untyped-call]
        return product

    def forward(self, h: Tensor) -> Tensor:
        """W_hh h + b_hh."""
        return torch.addmm(self._bias, h, self._transposed)

    def backward(self, h: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of h; that of the weights is noted for later."""
        self.seen.append((h, gradient))
        return gradient @ self._weight


class _Root(Function):
    """What all products of a sequence hang from: its backward runs after all of theirs."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, _: Tensor, recurrence: Recurrence) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.recurrence = recurrence
        return weight.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, Tensor, None]:
        hs, gradients = (torch.cat(parts) for parts in zip(*ctx.recurrence.seen, strict=True))  # [T*B, ...]
        return gradients.t() @ hs, gradients.sum(0), None


class _Product(Function):
    """One position."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, _: Tensor, recurrence: Recurrence) -> Tensor:
        ctx.save_for_backward(h)
        ctx.recurrence = recurrence
        return recurrence.forward(h)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (h,) = ctx.saved_tensors
        return ctx.recurrence.backward(h, gradients[0]), None, None
