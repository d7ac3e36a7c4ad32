"""Records: what is stored is read back, or refused."""

import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman_server.domain.errors import CorruptRecordError
from elman_server.domain.events import FinishReason
from elman_server.domain.requests import SamplingRequest
from elman_server.domain.state import NO_CHARACTER, SessionState
from elman_server.sessions.codec import pack, unpack
from elman_server.sessions.records import (
    PLAIN_VERSION,
    UNBOUND_VERSION,
    VERSION,
    Head,
    OpenTurn,
    Outcome,
    Parameters,
    Segment,
    body_of,
    decode,
    encode,
)

times = st.floats(0, 2**33)
seeds = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(codec="utf-8"))
numbers = st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4])  # any bits that float32 may have
states = st.builds(SessionState, st.lists(numbers, max_size=4).map(tuple), st.integers(NO_CHARACTER, 2**31 - 1))
samplings = st.builds(
    SamplingRequest,
    logit_bias=st.lists(st.tuples(st.text(max_size=1), st.floats(-100, 100))).map(tuple),
    allowed_characters=texts,
    temperature=st.none() | st.floats(0, 10),
    seed=seeds,
)
parameters = st.builds(
    Parameters,
    fingerprint=texts,
    request_id=st.binary(min_size=16, max_size=16),
    request=st.binary(min_size=16, max_size=16),
    sampling=st.none() | samplings,
    max_chars=st.integers(0, 2**40),
    stop_strings=st.lists(texts, max_size=3).map(tuple),
    include_stop=st.booleans(),
    rollback=st.booleans(),
    log_probability=st.booleans(),
    top_n=st.integers(0, 20),
    chunk_chars=st.integers(0, 100),
)
outcomes = st.builds(Outcome, st.sampled_from(FinishReason), texts, st.binary(min_size=32, max_size=32))
positions = st.integers(0, 2**40)
opens = st.builds(
    OpenTurn,
    token=st.binary(max_size=8),
    writer=texts,
    lease_expires=times,
    parameters=parameters,
    start=positions,
    prompt_end=positions,
    position=positions,
    num_segments=positions,
    checkpoint=positions,
    prompt=st.binary(max_size=10),
    state=st.none() | states,
    is_continuation=st.booleans(),
    is_cancelled=st.booleans(),
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
    state=states,
    owner=texts,
    etag=seeds,
    recent=st.lists(st.tuples(st.binary(max_size=8), positions), max_size=3),
    forked_from=st.none() | st.tuples(texts, positions),
    open=st.none() | opens,
    older=st.binary(max_size=8),
)
ids = st.lists(st.integers(0, 300) | st.integers(0, 2**31))
segments = st.builds(
    Segment.of,
    positions,
    ids,
    ids,
    parameters=st.none() | parameters,
    outcome=st.none() | outcomes,
    state=st.none() | states,
)

NAME = "abcd"
HEAD = encode(
    Head("m", "1", "0" * 64, 1.0, 2.0, 60.0, 62.0, 90.0, 2**64 - 1, {"a": "b"}, 3, 1, SessionState((b"abcd",), 2)), NAME
)


@given(heads)
def test_a_head_is_read_back(head):
    """What was stored of a session is what is loaded."""
    assert decode(encode(head, NAME), Head, NAME) == head


@given(segments)
def test_a_segment_is_read_back(segment):
    """What was stored of a turn is what is loaded."""
    assert decode(encode(segment, NAME), Segment, NAME) == segment


@given(start=st.integers(0, 1000), prompt=ids, sampled=ids)
def test_a_segment_holds_a_turn(start, prompt, sampled):
    """The ids come back in order, with the places where the prompt and the turn end."""
    segment = Segment.of(start, prompt, sampled)
    assert segment.ids == [*prompt, *sampled]
    assert (segment.start, segment.prompt_end) == (start, start + len(prompt))
    assert segment.end == start + len(prompt) + len(sampled)


def test_a_young_session_is_small():
    """A session of an LSTM 2x512 that has run a turn is seven eighths of its 8,192 bytes of state and little more."""
    random = np.random.default_rng(0)
    state = SessionState(tuple(np.tanh(random.normal(size=512)).astype(np.float32).tobytes() for _ in range(4)), 7)
    fingerprint = "onnxruntime-1.30.1/numpy-2.3.0/x86_64/0123456789abcdef"
    ids = random.integers(0, 65, 120).tolist()
    asked = Parameters(
        fingerprint, random.bytes(16), random.bytes(16), SamplingRequest(temperature=0.7, top_k=30, seed=2**31), 100
    )
    outcome = Outcome(FinishReason.MAX_CHARS, "", random.bytes(32))
    segment = Segment.of(0, ids[:20], ids[20:], parameters=asked, outcome=outcome)
    head = Head(
        "shakespeare", "1", "0" * 64, 1e9, 1e9, 60.0, 1e9, 1e9, 2**63, {}, 520, 1, state, recent=[(b"r" * 8, 0)]
    )
    assert len(encode(head, NAME)) < state.num_bytes * 7 / 8 + 300
    assert len(encode(segment, NAME)) - len(ids) < 160


def test_a_record_belongs_to_its_session_and_place():
    """That of another session or place is corrupt; a record of the version before did not know where it belongs."""
    segment = Segment.of(0, [1], [2])
    stored = encode(segment, NAME, 3)
    assert decode(stored, Segment, NAME, 3) == segment
    for session, place in (("efgh", 3), (NAME, 2), (NAME, -1), ("abcd 3", 3)):
        with pytest.raises(CorruptRecordError, match="belongs elsewhere"):
            decode(stored, Segment, session, place)
    body = body_of(segment)
    unbound = UNBOUND_VERSION + zlib.crc32(UNBOUND_VERSION + body).to_bytes(4, "little") + body
    assert decode(unbound, Segment, "efgh", 7) == segment


@given(heads | segments)
def test_a_record_of_an_earlier_server_is_read(record):
    """Version 2 was the same, without compact forms."""
    body = msgspec.msgpack.encode(record)
    stored = PLAIN_VERSION + zlib.crc32(body).to_bytes(4, "little") + body
    assert decode(stored, type(record), NAME) == record


def test_a_state_comes_back_to_the_bit():
    """Whatever the numbers: zeros, tiny ones, large ones, both signs, and NaN."""
    numbers = np.array([0.0, -0.0, 1e-45, -1e38, 1.0, np.inf, np.nan, *np.random.default_rng(0).normal(size=5000)])
    state = SessionState((numbers.astype(np.float32).tobytes(), numbers[:3].astype(np.float32).tobytes(), b""), 3)
    assert unpack(pack(state)) == state


@pytest.mark.parametrize("change", [b"", b"abc", b"\x03\x00abc"])
def test_a_state_of_other_numbers_is_refused(change):
    """A packed state whose parts do not belong together is corrupt, not another state."""
    packed = pack(SessionState((bytes(40),), 1))
    damaged = SessionState((change, *packed.tensors[1:]) if change else (), 1)
    with pytest.raises((ValueError, zlib.error)):
        unpack(damaged)


@pytest.mark.parametrize(("largest", "size"), [(255, 1), (256, 2), (65535, 2), (65536, 4)])
def test_a_segment_takes_as_few_bytes_as_it_can(largest, size):
    """A character of a small vocabulary is stored in one byte."""
    assert len(Segment.of(0, [0], [largest]).packed) == 2 * size


@pytest.mark.parametrize("flip", [1, 0x80, 0xFF])
def test_a_changed_byte_is_found(flip):
    """One changed byte anywhere makes the record corrupt, not another session."""
    for at in range(len(HEAD)):
        changed = bytearray(HEAD)
        changed[at] ^= flip
        with pytest.raises(CorruptRecordError):
            decode(bytes(changed), Head, NAME)


@given(st.binary() | st.binary().map(lambda rest: VERSION + rest))
def test_other_bytes_are_refused(data):
    """Garbage is a CorruptRecordError and nothing else."""
    with pytest.raises(CorruptRecordError):
        decode(data, Head, NAME)
    with pytest.raises(CorruptRecordError):
        decode(data, Segment, NAME)


def test_a_record_that_was_cut_is_refused():
    """Every beginning of a record is corrupt."""
    for size in range(len(HEAD)):
        with pytest.raises(CorruptRecordError):
            decode(HEAD[:size], Head, NAME)


def test_another_version_is_refused():
    """A record of another format version is named as such."""
    with pytest.raises(CorruptRecordError, match="version 01, this server reads 02 to 04"):
        decode(b"\x01" + HEAD[1:], Head, NAME)


def test_a_record_of_another_kind_is_refused():
    """A segment is not a head, even with the right checksum."""
    with pytest.raises(CorruptRecordError, match="cannot be read"):
        decode(encode(Segment.of(0, [1], [2]), NAME), Head, NAME)
    with pytest.raises(CorruptRecordError, match="cannot be read"):
        decode(HEAD, Segment, NAME)
