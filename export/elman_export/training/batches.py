"""Batches for truncated back-propagation through time: parallel streams of the text, cut into sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from elman_export.errors import CorpusError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from elman_export.evaluation.corpus import Ids
    from elman_export.training.recipe import Recipe


@dataclass
class Position:
    """Where in its epochs a run is."""

    epoch: int  # complete ones
    offset: int  # where in the text this epoch's first stream began
    consumed: int  # characters of every stream read in this epoch


class Streams:
    """Cuts a text into `recipe.streams` contiguous streams and returns sequences of them.

    Raises:
        CorpusError: The text is too short for the streams.
    """

    def __init__(self, ids: Ids, recipe: Recipe) -> None:
        self._ids = ids  # [N]
        self._recipe = recipe
        spare = len(ids) // recipe.streams  # the range of the first stream's start
        self.stream_length = (len(ids) - spare - 1) // recipe.streams
        if self.stream_length < recipe.length:
            needed = (recipe.length + 1) * (recipe.streams + 1) * 10 // 9
            raise CorpusError(
                f"The text is too short: {recipe.streams} streams of {recipe.length} characters "
                f"need about {needed:,}. Use a longer text, or fewer streams in a recipe file."
            )
        self._spare = spare

    def start_epoch(self, epoch: int, generator: Generator) -> Position:
        """Begin an epoch at another offset, so that sequences are cut at other places."""
        offset = int(torch.randint(0, self._spare, (), generator=generator))
        return Position(epoch, offset, 0)

    def take(self, position: Position, generator: Generator) -> tuple[Tensor, Tensor]:
        """The next sequence: characters and those that follow them, each ``[T, streams]``.

        Moves the position on.
        """
        jitter = self._recipe.length_jitter
        jittered = torch.randint(-jitter, jitter + 1, (), generator=generator)
        length = min(self._recipe.length + int(jittered), self.stream_length - position.consumed)
        first = position.offset + position.consumed
        starts = first + self.stream_length * np.arange(self._recipe.streams)  # [B]
        read = self._ids[starts + np.arange(length + 1)[:, None]]  # [T + 1, B]: the last row is only a target
        ids = torch.from_numpy(read.astype(np.int64))
        position.consumed += length
        return ids[:-1], ids[1:]

    def is_epoch_over(self, position: Position) -> bool:
        """Whether every stream has been read to its end."""
        return position.consumed >= self.stream_length
