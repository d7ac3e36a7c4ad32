"""A text as the trainer sees it: symbols, their ids, and its parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from elman_export.errors import CorpusError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

VALIDATION_PERCENT = 10  # the last part of the text; nanoGPT's split
MIN_CHARACTERS = 30  # below that the last part holds next to nothing to predict


@dataclass(frozen=True)
class Corpus:
    """A text in ids."""

    vocabulary: tuple[str, ...] | None  # characters in id order; None: bytes
    ids: Tensor  # [N] int64
    sha256: str  # of the file

    @property
    def training(self) -> Tensor:
        """The first 90 %, ``[n]`` int64."""
        return self.ids[: len(self.ids) * (100 - VALIDATION_PERCENT) // 100]

    @property
    def validation(self) -> Tensor:
        """The last 10 %, ``[n]`` int64: never trained on."""
        return self.ids[len(self.training) :]


def read_corpus(path: Path, *, as_bytes: bool = False) -> Corpus:
    """Read a UTF-8 text.

    Args:
        path: The file.
        as_bytes: Take bytes for symbols instead of characters.

    Raises:
        CorpusError: The file cannot be read, is empty or very short, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"Cannot read the text {path}: {error.strerror}.") from error
    if not content:
        raise CorpusError(f"The text {path} is empty: there is nothing to learn.")
    digest = hashlib.sha256(content).hexdigest()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"The text {path} is not UTF-8 (byte {error.start}): convert it first, for example with iconv."
        ) from error
    if len(text) < MIN_CHARACTERS:
        raise CorpusError(f"The text {path} has {len(text)} characters; training needs at least {MIN_CHARACTERS}.")
    if as_bytes:
        return Corpus(None, torch.from_numpy(np.frombuffer(content, np.uint8).astype("i8")), digest)
    points, ids = np.unique(np.frombuffer(text.encode("utf-32-le"), "<u4"), return_inverse=True)
    return Corpus(tuple(map(chr, points)), torch.from_numpy(ids.astype("i8")), digest)
