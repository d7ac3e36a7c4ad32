"""Dropout in training, against overfitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from elman_export.training.model import Noise

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from elman_export.training.recipe import Recipe


class Dropout(Noise):
    """Locked dropout and DropConnect, at a recipe's rates.

    Locked: one mask for a whole sequence (Gal and Ghahramani 2016), so that a dropped unit
    stays dropped; DropConnect: entries of W_hh, not of h (Merity et al. 2017).
    """

    def __init__(self, recipe: Recipe, generator: Generator) -> None:
        self._recipe = recipe
        self._generator = generator

    def embedding(self, x: Tensor) -> Tensor:
        """Drop features of the embedding, ``[T, B, E]``."""
        return self._drop(x, (1, *x.shape[1:]), self._recipe.embedding_dropout)

    def hidden(self, x: Tensor) -> Tensor:
        """Drop units between layers and before the output, ``[T, B, H]``."""
        return self._drop(x, (1, *x.shape[1:]), self._recipe.hidden_dropout)

    def recurrent(self, weight: Tensor) -> Tensor:
        """Drop entries of W_hh, ``[G*H, H]``."""
        return self._drop(weight, weight.shape, self._recipe.recurrent_dropout)

    def _drop(self, x: Tensor, shape: tuple[int, ...], rate: float) -> Tensor:
        if not rate:
            return x
        mask = torch.empty(shape).bernoulli_(1 - rate, generator=self._generator)
        return x * mask.div_(1 - rate).to(x.device)  # preserves the expected value
