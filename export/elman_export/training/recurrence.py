"""A layer over a whole sequence, with its gradient written by hand.

Automatic differentiation would compute the gradient of W_hh at every position; here it is one product over all
positions, and the recurrent products may use bfloat16, which is twice as fast on a CPU with the instructions.
Everything else stays in the precision of the gates. Shapes: T positions, B rows, H units, G gates.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Precision = Literal["float32", "bfloat16"]


class At(NamedTuple):
    """One position: the state before it, and two buffers for the backward pass."""

    before: list[Tensor]  # each [B, H], h first
    kept: Tensor  # [B, G*H]
    extra: Tensor  # [B, H]


class Kernel(Protocol):
    """A cell's equations at one position, forwards and backwards."""

    @staticmethod
    def forward(at: At, gates: Tensor, recurrent: Tensor, after: list[Tensor]) -> None:
        """Fill the state `after` from W_ih x + b_ih and W_hh h + b_hh, each ``[B, G*H]``."""

    @staticmethod
    def backward(at: At, grads: list[Tensor], d_gates: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fill the gradient of `gates` from those of `after`.

        Returns:
            The last columns of the gradient of `recurrent`, which is that of `gates` otherwise; and the gradient of the
            state before, except through the product W_hh h.
        """


class ElmanKernel:
    """h' = tanh(gates + recurrent)."""

    @staticmethod
    def forward(at: At, gates: Tensor, recurrent: Tensor, after: list[Tensor]) -> None:
        """Keeps h'."""
        after[0].copy_(torch.add(gates, recurrent, out=at.kept).tanh_())

    @staticmethod
    def backward(at: At, grads: list[Tensor], d_gates: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The derivative of tanh is 1 - tanh²; h reaches h' through the product alone."""
        torch.mul(grads[0], 1 - at.kept * at.kept, out=d_gates)
        return d_gates, [torch.zeros_like(grads[0])]


class GRUKernel:
    """r, z = sigmoid(gates + recurrent); n = tanh(gates_n + r recurrent_n); h' = n + z (h - n)."""

    @staticmethod
    def forward(at: At, gates: Tensor, recurrent: Tensor, after: list[Tensor]) -> None:
        """Keeps r, z, n; and recurrent_n."""
        rz = 2 * at.extra.shape[1]
        torch.add(gates[:, :rz], recurrent[:, :rz], out=at.kept[:, :rz]).sigmoid_()
        at.extra.copy_(recurrent[:, rz:])
        r, z, n = at.kept.chunk(3, dim=1)
        torch.addcmul(gates[:, rz:], r, at.extra, out=n).tanh_()
        torch.lerp(n, at.before[0], z, out=after[0])

    @staticmethod
    def backward(at: At, grads: list[Tensor], d_gates: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The candidate's recurrent share is scaled by r, and so is its gradient."""
        r, z, n = at.kept.chunk(3, dim=1)
        d_r, d_z, d_n = d_gates.chunk(3, dim=1)
        d_past = grads[0] * z  # through z h
        torch.mul(grads[0] - d_past, 1 - n * n, out=d_n)
        torch.mul((at.before[0] - n) * d_past, 1 - z, out=d_z)  # the derivative of z is z (1 - z), and d_past has the z
        d_product = d_n * r
        torch.mul(d_product * at.extra, 1 - r, out=d_r)
        return d_product, [d_past]


class LSTMKernel:
    """i, f, o = sigmoid(.), g = tanh(.) of gates + recurrent; c' = f c + i g; h' = o tanh(c')."""

    @staticmethod
    def forward(at: At, gates: Tensor, recurrent: Tensor, after: list[Tensor]) -> None:
        """Keeps i, f, g, o; and tanh(c')."""
        torch.add(gates, recurrent, out=at.kept)
        i, f, g, o = at.kept.chunk(4, dim=1)
        for gate in (i, f, o):
            gate.sigmoid_()
        g.tanh_()
        torch.addcmul(f * at.before[1], i, g, out=after[1])
        torch.tanh(after[1], out=at.extra)
        torch.mul(o, at.extra, out=after[0])

    @staticmethod
    def backward(at: At, grads: list[Tensor], d_gates: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The gradient of c' comes from h' and from the next c."""
        i, f, g, o = at.kept.chunk(4, dim=1)
        d_i, d_f, d_g, d_o = d_gates.chunk(4, dim=1)
        d_c = torch.addcmul(grads[1], grads[0] * o, 1 - at.extra * at.extra)
        torch.mul(grads[0] * at.extra, o * (1 - o), out=d_o)
        torch.mul(d_c * g, i * (1 - i), out=d_i)
        torch.mul(d_c * at.before[1], f * (1 - f), out=d_f)
        torch.mul(d_c * i, 1 - g * g, out=d_g)
        return d_gates, [torch.zeros_like(d_c), d_c * f]


class _Recurrence(torch.autograd.Function):
    """Every position of a layer: gates ``[T, B, G*H]`` to every state ``[T, B, H]``, h first."""

    @staticmethod
    def forward(  # noqa: PLR0917  # torch calls it
        ctx: Any, kernel: Kernel, dtype: torch.dtype, gates: Tensor, weight_hh: Tensor, bias_hh: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        length, rows, _ = gates.shape
        weight, bias = weight_hh.to(dtype), bias_hh.to(dtype)
        # Position 0 holds the initial state: the state after position t is at t + 1.
        states = [part.new_empty(length + 1, *part.shape) for part in state]
        factor = torch.empty(length + 1, *state[0].shape, dtype=dtype, device=gates.device)  # h in the products
        kept, extra = torch.empty_like(gates), gates.new_empty(length, rows, state[0].shape[1])
        for part, initial in zip(states, state, strict=True):
            part[0] = initial
        for t in range(length):
            factor[t] = states[0][t]
            recurrent = functional.linear(factor[t], weight, bias)  # [B, G*H]
            at = At([part[t] for part in states], kept[t], extra[t])
            kernel.forward(at, gates[t], recurrent, [part[t + 1] for part in states])
        ctx.kernel = kernel
        ctx.save_for_backward(weight, factor, kept, extra, *states)
        return tuple(part[1:] for part in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_states: Tensor) -> tuple[Tensor | None, ...]:
        weight, factor, kept, extra, *states = ctx.saved_tensors
        d_gates = torch.empty_like(kept)
        d_recurrent = torch.empty(kept.shape, dtype=weight.dtype, device=kept.device)
        d_bias = torch.zeros_like(kept[0])  # [B, G*H], summed over rows at the end
        later = [torch.zeros_like(part[0]) for part in grad_states]  # the gradient from the positions after t
        for t in reversed(range(len(kept))):
            grads = [own[t] + rest for own, rest in zip(grad_states, later, strict=True)]
            at = At([part[t] for part in states], kept[t], extra[t])
            differing, later = ctx.kernel.backward(at, grads, d_gates[t])
            same = d_gates.shape[2] - differing.shape[1]
            d_recurrent[t, :, :same] = d_gates[t, :, :same]
            d_recurrent[t, :, same:] = differing
            d_bias += d_recurrent[t]
            later[0] += d_recurrent[t] @ weight
        d_weight = d_recurrent.flatten(0, 1).t() @ factor[:-1].flatten(0, 1)
        return None, None, d_gates, d_weight.to(kept.dtype), d_bias.sum(0), *later


def recur(
    kernel: Kernel, gates: Tensor, weight_hh: Tensor, bias_hh: Tensor, *state: Tensor, precision: Precision = "float32"
) -> tuple[Tensor, ...]:
    """Run a layer over a sequence.

    Args:
        kernel: The cell's equations.
        gates: ``[T, B, G*H]``, the input's share: W_ih x + b_ih.
        weight_hh: ``[G*H, H]``.
        bias_hh: ``[G*H]``.
        state: h, and for the LSTM c, each ``[B, H]``.
        precision: Of the recurrent products, forwards and backwards.

    Returns:
        Every state after every position, each ``[T, B, H]``, h first.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else gates.dtype
    states: tuple[Tensor, ...] = _Recurrence.apply(kernel, dtype, gates, weight_hh, bias_hh, *state)  # type: ignore[no-untyped-call]
    return states


def product(x: Tensor, weight: Tensor, bias: Tensor, precision: Precision) -> Tensor:
    """W x + b with the factors rounded to `precision`; the result has x's type again."""
    if precision == "float32":
        return functional.linear(x, weight, bias)
    dtype = torch.bfloat16
    return functional.linear(x.to(dtype), weight.to(dtype)).to(x.dtype) + bias
