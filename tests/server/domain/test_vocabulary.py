"""Text to ids and back."""

import codecs
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman_server.domain.errors import InvalidFieldError, UnknownCharacterError
from elman_server.domain.vocabulary import MAX_REPORTED, Unknown, Vocabulary
from tests.models import CHARACTERS

SHAKESPEARE = Vocabulary(tuple(CHARACTERS))
BYTES = Vocabulary(None)
UNREADABLE = "a\0b😀ć"  # NUL, emoji, a letter from elsewhere


@given(st.text(CHARACTERS))
def test_characters_are_ids_in_order(text):
    """A character's id is its place in the vocabulary; decoding gives the text back."""
    ids = SHAKESPEARE.encode(text, "prompt")
    assert ids == [CHARACTERS.index(character) for character in text]
    assert SHAKESPEARE.decoder().decode(ids) == text


def test_hello_is_five_characters():
    """R6: "hello" is read one character at a time, l twice by the same id."""
    h, e, first, second, o = SHAKESPEARE.encode("hello", "prompt")
    assert first == second
    assert len({h, e, first, o}) == 4


def test_unknown_characters_are_refused_by_name_and_place():
    """The default says which characters are not there and where, in code points."""
    with pytest.raises(UnknownCharacterError) as refused:
        SHAKESPEARE.encode(UNREADABLE, "prompt")
    assert refused.value.field == "prompt"
    assert refused.value.characters == (("\0", 1), ("😀", 3), ("ć", 4))
    assert "'\\U0001f600' at 3" in str(refused.value)
    assert str(refused.value).isascii()


def test_a_lone_surrogate_is_an_unknown_character():
    """What UTF-8 cannot hold is refused like any other character, by both kinds of vocabulary."""
    for vocabulary in (SHAKESPEARE, BYTES):
        with pytest.raises(UnknownCharacterError) as refused:
            vocabulary.encode("ab\ud800c", "prompt")
        assert refused.value.characters == (("\ud800", 2),)


def test_few_unknown_characters_are_reported():
    """However many there are, the error stays small and says how many more."""
    with pytest.raises(UnknownCharacterError, match="and 990 more") as refused:
        SHAKESPEARE.encode("ä" * 1000, "prompt")
    assert len(refused.value.characters) == MAX_REPORTED


def test_unknown_characters_may_be_skipped_or_replaced():
    """Skip leaves them out, replace puts a character of the vocabulary in their place."""
    decode = SHAKESPEARE.decoder().decode
    assert decode(SHAKESPEARE.encode(UNREADABLE, "prompt", Unknown(skip=True))) == "ab"
    assert decode(SHAKESPEARE.encode(UNREADABLE, "prompt", Unknown(replace_with="-"))) == "a-b--"


@pytest.mark.parametrize("other", ["😀", "ab", ""])
@pytest.mark.parametrize("text", [UNREADABLE, "known"])
def test_a_replacement_is_one_known_character(text, other):
    """A replacement that is none is refused, needed or not."""
    with pytest.raises(InvalidFieldError) as refused:
        SHAKESPEARE.encode(text, "prompt", Unknown(replace_with=other))
    assert refused.value.field == "unknown_characters.replace_with"


@given(st.text())
def test_a_byte_level_model_reads_everything(text):
    """Every text is its UTF-8 bytes."""
    ids = BYTES.encode(text, "prompt")
    assert ids == list(text.encode())
    assert BYTES.decoder().decode(ids) == text
    assert BYTES.unknown(text) == []


# Whole characters, and any bytes at all.
DATA = st.lists(st.characters().map(lambda c: c.encode(errors="replace")) | st.binary(max_size=3)).map(b"".join)


@given(data=DATA, cuts=st.lists(st.integers(0, 40)), is_one_stream=st.booleans())
def test_a_decoder_gives_valid_text_in_any_pieces(data, cuts, is_one_stream):
    """Pieces, joined, are the whole but for an unfinished end: by one decoder, or by one each that knows the past."""
    decoder = BYTES.decoder()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = []
    for a, b in itertools.pairwise(edges):
        decoder = decoder if is_one_stream else BYTES.decoder(data[:a])
        pieces.append(decoder.decode(data[a:b]))
        pieces[-1].encode()  # raises for half of a surrogate pair
    assert "".join(pieces) == codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def test_ids_of_single_characters():
    """A character's id is found by name; of a byte-level model U+0000 to U+00FF stand for the bytes."""
    assert SHAKESPEARE.id_of("a", "f") == CHARACTERS.index("a")
    assert [BYTES.id_of(BYTES.symbol(byte), "f") for byte in range(256)] == list(range(256))
    with pytest.raises(UnknownCharacterError):
        SHAKESPEARE.id_of("ü", "f")


@pytest.mark.parametrize("vocabulary", [SHAKESPEARE, BYTES], ids=["characters", "bytes"])
@pytest.mark.parametrize("text", ["", "ab"])
def test_two_characters_are_no_unknown_character(vocabulary, text):
    """Each of them may be in the vocabulary: the error says how many they are."""
    with pytest.raises(InvalidFieldError, match=f"is '{text}', of {len(text)} characters; allowed is one"):
        vocabulary.id_of(text, "f")


def test_sizes():
    """A vocabulary is as large as its characters, or 256."""
    assert (len(SHAKESPEARE), len(BYTES)) == (65, 256)
