import hashlib
from pathlib import Path

import numpy as np
import pytest

from elman_export.errors import CorpusError
from elman_export.evaluation import split as split_module
from elman_export.evaluation.corpus import read_corpus
from elman_export.evaluation.split import read_split

TEXT = "".join(np.random.default_rng(0).choice(list("abc\u00e9\n"), 6007))


def write(folder: Path, text: str | bytes) -> Path:
    """A file that holds the text."""
    path = folder / "text"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("as_bytes", [False, True])
def test_it_is_the_trainers_split(tmp_path: Path, as_bytes: bool):  # noqa: FBT001 - parametrised
    """Both parts are the trainer's, symbol for symbol: what was trained on is not evaluated."""
    path = write(tmp_path, TEXT)
    corpus = read_corpus(path, as_bytes=as_bytes)
    split = read_split(path, corpus.vocabulary)
    assert split.training.tolist() == corpus.training.tolist()
    assert split.evaluated.tolist() == corpus.validation.tolist()
    assert (split.sha256, split.num_symbols) == (corpus.sha256, 256 if as_bytes else 5)
    assert hashlib.sha256(TEXT.encode()).hexdigest() == split.sha256


def test_ids_are_the_vocabularys_own(tmp_path: Path):
    """Whatever its order, and whatever else is in it."""
    vocabulary = tuple("z\n\u00e9cab")
    split = read_split(write(tmp_path, TEXT), vocabulary)
    assert "".join(vocabulary[i] for i in [*split.training, *split.evaluated]) == TEXT


def test_bytes_that_continue_a_character_are_told(tmp_path: Path):
    """A character is counted once, however many bytes it has."""
    text = "a\u00e9\u20ac\U0001f600" * 100
    split = read_split(write(tmp_path, text), None, is_whole=True)
    assert (split.characters.sum(), len(split.evaluated), len(split.training)) == (400, 1000, 0)


def test_a_whole_text_leaves_nothing_to_count(tmp_path: Path):
    """All of it is evaluated."""
    split = read_split(write(tmp_path, TEXT), tuple("abc\u00e9\n"), is_whole=True)
    assert (len(split.evaluated), len(split.training), split.is_whole) == (len(TEXT), 0, True)


def test_of_a_long_text_the_end_of_the_training_part_is_counted(tmp_path: Path, monkeypatch):
    """So that the memory that n-grams take is bounded."""
    path = write(tmp_path, TEXT)
    whole = read_split(path, tuple("abc\u00e9\n"))
    monkeypatch.setattr(split_module, "MAX_COUNTED", 100)
    assert read_split(path, tuple("abc\u00e9\n")).training.tolist() == whole.training[-100:].tolist()


def test_characters_of_the_training_part_alone_may_be_unknown(tmp_path: Path):
    """They are counted as what they are, symbols beyond the vocabulary."""
    split = read_split(write(tmp_path, "xyx" + TEXT), tuple("abc\u00e9\n"))
    assert split.num_symbols == 7
    assert split.training[0] == split.training[2] >= 5


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "Cannot read the text"),
        (b"", "is empty"),
        (
            b"a" * 5000,
            "has 500 held-out symbols, evaluation needs 513: take a longer text, or say that all of it is held out",
        ),
        (b"a" * 3000 + b"\xff", "is not UTF-8 (byte 3000)"),
        (b"a" * 6000 + b"\x07xy", r"has 3 characters that the model lacks, '\x07' 'x' 'y': evaluate it on"),
        (bytes(range(127)) * 60, r"'\x05' '\x06' '\x07' '\x08' '\t' …: evaluate it on"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(content: bytes | None, sentence: str, tmp_path: Path):
    """It names the text and says what to do."""
    path = tmp_path / "text" if content is None else write(tmp_path, content)
    with pytest.raises(CorpusError) as caught:
        read_split(path, tuple("a\n"))
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
