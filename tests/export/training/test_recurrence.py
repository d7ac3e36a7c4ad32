"""The gradient that is written by hand, against automatic differentiation of the equations."""

import pytest
import torch
from torch import Tensor

from elman_export.training.model import LAYERS, Cell, Layer
from elman_export.training.recurrence import recur

TIME, BATCH, INPUT, HIDDEN = 6, 3, 5, 7
CELLS: tuple[Cell, ...] = ("elman", "gru", "lstm")


def make_case(cell: Cell, dtype: torch.dtype) -> tuple[Layer, Tensor, list[Tensor]]:
    """A random layer, its gates at every position, and a state to begin with."""
    generator = torch.Generator().manual_seed(0)
    layer = LAYERS[cell](INPUT, HIDDEN).to(dtype)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    gates = torch.randn(TIME, BATCH, layer.num_gates * HIDDEN, dtype=dtype, generator=generator, requires_grad=True)
    state = [
        torch.randn(BATCH, HIDDEN, dtype=dtype, generator=generator, requires_grad=True)
        for _ in range(layer.num_states)
    ]
    return layer, gates, state


def step_by_step(layer: Layer, gates: Tensor, state: list[Tensor]) -> list[Tensor]:
    """Every state after every position, by the equations of a single step."""
    moved: tuple[Tensor, ...] = tuple(state)
    rows = []
    for position in gates:
        moved = layer.advance(position, *moved)
        rows.append(moved)
    return [torch.stack(part) for part in zip(*rows, strict=True)]


def gradients(outputs: list[Tensor], layer: Layer, gates: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a random weighting of all outputs, with respect to everything that they depend on."""
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        ((part * torch.randn(part.shape, dtype=part.dtype, generator=generator)).sum() for part in outputs),
        torch.zeros((), dtype=gates.dtype),
    )
    return torch.autograd.grad(loss, [gates, layer.weight_hh, layer.bias_hh, *state])


@pytest.mark.parametrize("cell", CELLS)
def test_values_and_gradients_are_those_of_the_equations(cell: Cell):
    """In float64 the whole sequence gives what single steps give, and so do its gradients."""
    layer, gates, state = make_case(cell, torch.float64)
    actual = list(recur(layer.kernel, gates, layer.weight_hh, layer.bias_hh, *state))
    expected = step_by_step(layer, gates, state)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradients(actual, layer, gates, state), gradients(expected, layer, gates, state))


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_rounds_the_products_alone(cell: Cell):
    """Values and gradients stay within what eight bits of a factor allow."""
    layer, gates, state = make_case(cell, torch.float32)
    actual = list(recur(layer.kernel, gates, layer.weight_hh, layer.bias_hh, *state, precision="bfloat16"))
    expected = step_by_step(layer, gates, state)
    assert {part.dtype for part in actual} == {torch.float32}
    assert not torch.equal(actual[0], expected[0])
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0.05)
    torch.testing.assert_close(
        gradients(actual, layer, gates, state), gradients(expected, layer, gates, state), atol=0.3, rtol=0.1
    )
