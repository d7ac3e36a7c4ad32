"""Records: what is stored is read back, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman_server.errors import CorruptRecordError
from elman_server.records import Head, Segment, decode, encode
from elman_server.state import NO_CHARACTER, Memory

times = st.floats(0, 2**33)
seeds = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(codec="utf-8"))
memories = st.builds(
    Memory, st.lists(st.binary(max_size=64), max_size=4).map(tuple), st.integers(NO_CHARACTER, 2**31 - 1)
)
heads = st.builds(
    Head,
    model=texts,
    model_version=texts,
    model_digest=texts,
    created=times,
    updated=times,
    ttl=st.none() | times,
    expires=times,
    last=times,
    seed=seeds,
    labels=st.dictionaries(texts, texts, max_size=3),
    position=st.integers(0, 2**40),
    turn_count=st.integers(0, 2**40),
    memory=memories,
    owner=texts,
)
ids = st.lists(st.integers(0, 300) | st.integers(0, 2**31))
segments = st.builds(Segment.of, st.integers(0, 2**40), ids, ids, seeds)

HEAD = encode(Head("m", "1", "0" * 64, 1.0, 2.0, 60.0, 62.0, 90.0, 2**64 - 1, {"a": "b"}, 3, 1, Memory((b"abcd",), 2)))


@given(heads)
def test_a_head_is_read_back(head):
    """What was stored of a session is what is loaded."""
    assert decode(encode(head), Head) == head


@given(segments)
def test_a_segment_is_read_back(segment):
    """What was stored of a turn is what is loaded."""
    assert decode(encode(segment), Segment) == segment


@given(start=st.integers(0, 1000), prompt=ids, drawn=ids)
def test_a_segment_holds_a_turn(start, prompt, drawn):
    """The ids come back in order, with the places where the prompt and the turn end."""
    segment = Segment.of(start, prompt, drawn, 1)
    assert segment.ids == [*prompt, *drawn]
    assert (segment.start, segment.prompt_end) == (start, start + len(prompt))
    assert segment.end == start + len(prompt) + len(drawn)


@pytest.mark.parametrize(("largest", "size"), [(255, 1), (256, 2), (65535, 2), (65536, 4)])
def test_a_segment_takes_as_few_bytes_as_it_can(largest, size):
    """A character of a small vocabulary is stored in one byte."""
    assert len(Segment.of(0, [0], [largest], 1).packed) == 2 * size


@pytest.mark.parametrize("flip", [1, 0x80, 0xFF])
def test_a_changed_byte_is_found(flip):
    """One changed byte anywhere makes the record corrupt, not another session."""
    for at in range(len(HEAD)):
        changed = bytearray(HEAD)
        changed[at] ^= flip
        with pytest.raises(CorruptRecordError):
            decode(bytes(changed), Head)


@given(st.binary() | st.binary().map(lambda rest: b"\x01" + rest))
def test_other_bytes_are_refused(data):
    """Garbage is a CorruptRecordError and nothing else."""
    with pytest.raises(CorruptRecordError):
        decode(data, Head)
    with pytest.raises(CorruptRecordError):
        decode(data, Segment)


def test_a_record_that_was_cut_is_refused():
    """Every beginning of a record is corrupt."""
    for size in range(len(HEAD)):
        with pytest.raises(CorruptRecordError):
            decode(HEAD[:size], Head)


def test_another_version_is_refused():
    """A record of another format version is named as such."""
    with pytest.raises(CorruptRecordError, match="version 02, this server reads 01"):
        decode(b"\x02" + HEAD[1:], Head)


def test_a_record_of_another_kind_is_refused():
    """A segment is not a head, even with the right checksum."""
    with pytest.raises(CorruptRecordError, match="cannot be read"):
        decode(encode(Segment.of(0, [1], [2], 3)), Head)
    with pytest.raises(CorruptRecordError, match="cannot be read"):
        decode(HEAD, Segment)
