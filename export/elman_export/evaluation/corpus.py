"""A text for training: symbols, ids and parts. It may be larger than the memory."""

from __future__ import annotations

import codecs
import hashlib
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elman_export.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

    from numpy.typing import NDArray

    Ids = NDArray[np.unsignedinteger[Any]]

VALIDATION_PERCENT = 10  # the last part of the text; nanoGPT's split
MIN_CHARACTERS = 30  # with fewer the last part has almost nothing to predict
PIECE_BYTES = 1 << 18  # of the file in memory at a time
NUM_CODE_POINTS = 0x110000
BYTE_ORDER_MARK = 0xFEFF  # at the beginning of a file it is no character


@dataclass(frozen=True)
class Corpus:
    """A text as ids in a memory-mapped file."""

    vocabulary: tuple[str, ...] | None  # characters in id order; None: bytes
    ids: Ids  # [N], in the smallest integer type that fits
    sha256: str  # of the file

    @property
    def training(self) -> Ids:
        """The first 90 %, ``[n]``."""
        return self.ids[: len(self.ids) * (100 - VALIDATION_PERCENT) // 100]

    @property
    def validation(self) -> Ids:
        """The last 10 %, ``[n]``: never trained on."""
        return self.ids[len(self.training) :]


def read_corpus(path: Path, *, as_bytes: bool = False) -> Corpus:
    """Read a UTF-8 text.

    Args:
        path: The file.
        as_bytes: Use bytes as symbols instead of characters; then any file is allowed.

    Raises:
        CorpusError: The file cannot be read, is empty or very short, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            corpus = _bytes(file) if as_bytes else _characters(file)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"The text {path} is not UTF-8 (byte {error.start}): convert it first, for example with iconv, or train "
            "with --bytes."
        ) from error
    except OSError as error:
        raise CorpusError(f"Cannot read the text {path}: {error.strerror}.") from error
    if not len(corpus.ids):
        raise CorpusError(f"The text {path} is empty: training needs text.")
    if len(corpus.ids) < MIN_CHARACTERS:
        raise CorpusError(f"The text {path} has {len(corpus.ids)} symbols; training needs at least {MIN_CHARACTERS}.")
    return corpus


def _bytes(file: BufferedReader) -> Corpus:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Corpus(None, _map(file, np.uint8), sha256)


def _characters(file: BufferedReader) -> Corpus:
    """Two passes: first collect the characters, then write their ids into an unnamed file."""
    sha256, is_seen = hashlib.sha256(), np.zeros(NUM_CODE_POINTS, np.bool_)
    for points in _code_points(file, sha256.update):
        is_seen[points] = True
    vocabulary = np.flatnonzero(is_seen)
    kind = np.min_scalar_type(max(len(vocabulary) - 1, 0))
    id_of = np.zeros(NUM_CODE_POINTS, kind)
    id_of[vocabulary] = np.arange(len(vocabulary), dtype=kind)
    with tempfile.TemporaryFile() as target:
        for points in _code_points(file):
            target.write(id_of[points].tobytes())
        return Corpus(tuple(map(chr, vocabulary.tolist())), _map(target, kind), sha256.hexdigest())


def _code_points(file: BufferedReader, see: Any = lambda _: None) -> Iterator[NDArray[np.uint32]]:
    """A file's code points, piece by piece; `see` is called with the bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    file.seek(0)
    for piece in iter(lambda: file.read(PIECE_BYTES), None):
        at = file.tell() - len(piece) - len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:  # where in the file, not in the piece
            error.start += at
            raise
        points = np.frombuffer(text.encode("utf-32-le"), "<u4")
        has_mark = at == 0 and len(points) > 0 and points[0] == BYTE_ORDER_MARK
        yield points[1:] if has_mark else points
        see(piece)
        if not piece:
            return


def _map(file: Any, kind: Any) -> Ids:
    """A file's content as a memory-mapped array; it remains valid after the file is removed."""
    file.flush()
    file.seek(0, 2)
    return np.memmap(file, kind, mode="r") if file.tell() else np.zeros(0, kind)
