"""Texts, good and bad."""

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from elman_export.errors import CorpusError
from elman_export.evaluation import corpus as corpus_module
from elman_export.evaluation.corpus import read_corpus
from elman_export.training.recipe import Recipe
from elman_export.training.trainer import Trainer


def test_ids_follow_the_code_points(tmp_path: Path):
    """The vocabulary is the sorted set of characters, and ids index it."""
    text = "héllo wörld 😀\r\n" * 4
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    corpus = read_corpus(path)
    assert corpus.vocabulary == tuple(sorted(set(text)))
    assert "".join(corpus.vocabulary[i] for i in corpus.ids) == text
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_byte_order_mark_is_no_character(tmp_path: Path):
    """At the beginning of a file it is left out of vocabulary and ids; elsewhere it is a character like any other."""
    path = tmp_path / "text"
    path.write_bytes("\ufeffabab".encode() * 10)
    corpus = read_corpus(path)
    assert corpus.vocabulary == ("a", "b", "\ufeff")
    assert len(corpus.ids) == 10 * 5 - 1
    assert list(corpus.ids[:5]) == [0, 1, 0, 1, 2]


def test_bytes_are_their_own_ids(tmp_path: Path):
    """A byte-level corpus has no vocabulary to store."""
    path = tmp_path / "text"
    path.write_text("é" * 30)
    corpus = read_corpus(path, as_bytes=True)
    assert corpus.vocabulary is None
    assert bytes(corpus.ids.tolist()) == path.read_bytes()


def test_the_last_tenth_validates(tmp_path: Path):
    """The split is nanoGPT's: 90 % and the rest, in order."""
    path = tmp_path / "text"
    path.write_text("0123456789" * 11 + "x")
    corpus = read_corpus(path)
    assert (len(corpus.training), len(corpus.validation)) == (99, 12)
    assert [*corpus.training.tolist(), *corpus.validation.tolist()] == corpus.ids.tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "Cannot read"),
        (b"", "empty"),
        (b"short", "at least 30"),
        (b"latin: \xe9" * 30, "not UTF-8 (byte 7)"),
    ],
)
def test_a_bad_text_is_refused_with_a_sentence(tmp_path: Path, content: bytes | None, words: str):
    """What cannot be trained on is said before training starts."""
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        read_corpus(path)
    assert words in str(caught.value)


def test_characters_may_lie_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file is read in pieces, and where they are cut changes nothing; nor does it where an error is."""
    monkeypatch.setattr(corpus_module, "PIECE_BYTES", 3)
    text = "héllo wörld 😀\r\n" * 4
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    corpus = read_corpus(path)
    assert corpus.vocabulary is not None
    assert "".join(corpus.vocabulary[i] for i in corpus.ids) == text
    path.write_bytes(text.encode() + b"\xe9 and more")
    with pytest.raises(CorpusError, match=f"byte {len(text.encode())}"):
        read_corpus(path)


def test_memory_stays_flat_for_a_large_text(tmp_path: Path):
    """Reading and training on 60 MB never holds a third of it, as bytes, as text or as ids."""
    line = "the quick brown fox jumps over the lazy dog, 0123456789 é ü\n".encode()
    peaks = []
    for count in (20_000, 1_000_000):  # the first one pays for what torch imports late
        path = tmp_path / "text"
        path.write_bytes(line * count)
        tracemalloc.start()  # sees what Python and NumPy allocate, not the pages of the file that are mapped
        trainer = Trainer(Recipe(hidden_size=8, embedding_size=4), read_corpus(path))
        for _ in range(3):
            trainer.step()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 20_000_000 < path.stat().st_size / 3
