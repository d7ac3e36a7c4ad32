"""Texts, good and bad."""

import hashlib
from pathlib import Path

import pytest

from elman_export.corpus import read_corpus
from elman_export.errors import CorpusError


def test_ids_follow_the_code_points(tmp_path: Path):
    """The vocabulary is the sorted set of characters, and ids index it."""
    text = "héllo wörld 😀\r\n" * 4
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    corpus = read_corpus(path)
    assert corpus.vocabulary == tuple(sorted(set(text)))
    assert "".join(corpus.vocabulary[i] for i in corpus.ids) == text
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()


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
