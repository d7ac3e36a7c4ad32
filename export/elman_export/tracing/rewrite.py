"""A module written so that torch can trace it: what has no operator in ONNX is computed beforehand or written out."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize


def rewrite(module: nn.Module) -> nn.Module:
    """Return a module that computes the same.

    Parametrized weights (orthogonal, weight_norm, spectral_norm, your own) become plain ones, and an `nn.LSTM` with
    projections is written out. The given module is not changed; it is returned if there is nothing to do.
    """
    if not any(parametrize.is_parametrized(part) or _is_projected(part) for part in module.modules()):
        return module
    written = copy.deepcopy(module)
    for part in written.modules():
        if parametrize.is_parametrized(part):
            _fold(part)
    return _without_projections(written)


class ProjectedLSTM(nn.Module):
    """An `nn.LSTM` with `proj_size`, step by step: h' = W_hr (o tanh(c')), as in PyTorch (Sak et al. 2014).

    Args:
        layers: One direction; in evaluation mode, so that dropout between its layers plays no part.
    """

    def __init__(self, layers: nn.LSTM) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """From x [T, B, I], or [B, T, I] with batch_first, to y [T, B, P] and the states [L, B, P] and [L, B, H]."""
        own = self.layers
        x = x.transpose(0, 1) if own.batch_first else x
        before = hx or tuple(x.new_zeros(own.num_layers, x.shape[1], size) for size in (own.proj_size, own.hidden_size))
        after = []
        for layer in range(own.num_layers):
            h, c = before[0][layer], before[1][layer]
            outputs = []
            for step in x:
                h, c = self._advance(layer, step, h, c)
                outputs.append(h)
            x = torch.stack(outputs)
            after.append((h, c))
        hs, cs = (torch.stack(kind) for kind in zip(*after, strict=True))
        return x.transpose(0, 1) if own.batch_first else x, (hs, cs)

    def _advance(self, layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        w_ih, w_hh, *biases, w_hr = self.layers.all_weights[layer]
        b_ih, b_hh = biases or (None, None)
        i, f, g, o = (functional.linear(x, w_ih, b_ih) + functional.linear(h, w_hh, b_hh)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return functional.linear(torch.sigmoid(o) * torch.tanh(c), w_hr), c


def _is_projected(module: nn.Module) -> bool:
    return isinstance(module, nn.LSTM) and module.proj_size > 0


def _fold(part: nn.Module) -> None:
    """As `remove_parametrizations` does, which changes the class that the copy shares with the original."""
    names = list(getattr(part, "parametrizations"))  # noqa: B009  torch types it as a module
    weights = {name: getattr(part, name).detach().clone() for name in names}
    part.__class__ = type(part).__bases__[0]
    delattr(part, "parametrizations")
    for name, weight in weights.items():
        setattr(part, name, nn.Parameter(weight))


def _without_projections(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.LSTM) and _is_projected(module):
        return ProjectedLSTM(module)
    for name, child in module.named_children():
        setattr(module, name, _without_projections(child))
    return module
