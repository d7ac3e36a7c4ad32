"""The protobuf wire format, against protobuf's own idea of it."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman_format.wire import WireError, encode, fields, messages


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.binary(max_size=300))))
def test_encoded_fields_are_read_back(pairs):
    """Fields come back in order, with their numbers and bytes."""
    data = b"".join(encode(number, value) for number, value in pairs)
    assert [(number, bytes(value)) for number, value in fields(data) if isinstance(value, memoryview)] == pairs


def test_a_real_message_is_walked():
    """Varints, fixed numbers and nested messages of a real protobuf message are found."""
    tensor = onnx.TensorProto(name="w", dims=[2, 300], double_data=[0.5], raw_data=b"abc")
    attribute = onnx.AttributeProto(name="a", f=1.5, t=tensor)
    (name,), (number,) = (list(messages(attribute.SerializeToString(), field)) for field in (1, 2))
    assert (bytes(name), bytes(number)) == (b"a", b"\0\0\xc0\x3f")
    (inner,) = messages(attribute.SerializeToString(), 5)
    assert bytes(inner) == tensor.SerializeToString()
    assert [value for number, value in fields(inner) if number == 1 and isinstance(value, int)] in ([2, 300], [])


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",  # a key that does not end
        b"\x80" * 11,  # nor ever will
        b"\x08",  # no value
        b"\x0a\x05abcd",  # one byte short
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2^64 - 1 bytes are declared
        b"\x09abcdefg",  # 7 of 8 bytes
        b"\x0dabc",  # 3 of 4 bytes
        b"\x0b",  # groups are long gone
        b"\x0e",  # no such type
        b"\x02\x00",  # field 0
    ],
)
def test_what_is_cut_or_malformed_is_refused(data):
    """A message that is not whole is a WireError."""
    with pytest.raises(WireError):
        list(fields(data))


@given(st.binary())
def test_random_bytes_are_walked_or_refused(data):
    """No bytes raise anything else, and values never reach beyond the message."""
    try:
        size = sum(len(value) for _, value in fields(data) if isinstance(value, memoryview))
    except WireError:
        return
    assert size <= len(data)
