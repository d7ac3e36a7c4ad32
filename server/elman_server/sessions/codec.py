"""Compact forms of what is stored: fewer bytes, and every bit comes back.

A state's numbers lie close together: sign and exponent of a float32 hold about half of their bits, which is an eighth
of the state. A turn's parameters are the same words again and again: a dictionary knows them.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np

from elman_server.domain.state import SessionState

_RAW: Final = -15  # no header and no checksum: the record has its own
# A part of the records' version: what was written with it is read with it. The likeliest stands last.
_DICTIONARY: Final = (
    b"\xabstop_string\xa9cancelled\xa8deadline\xafserver_draining\xaalogit_bias\xb2allowed_characters"
    b"\xb1banned_characters\xb2repetition_penalty\xcb\xb1repetition_window\xacstop_strings\x91\xa1\n\xacinclude_stop\xc3"
    b"\xa8rollback\xc3\xaflog_probability\xc3\xa5top_n\xabchunk_chars\xa5min_p\xcb?\xa5top_p\xcb?\xeeffffff\xa5top_k\x14"
    b"\xa4seed\xcf\xa4seed\xce\x93\xabstop_string\xa1\n\xc4 \xc0\x97\xcd\x01\xcd\x02\x01\xc4\x84\xabfingerprint\xd96"
    b"onnxruntime-1.31.0/numpy-2.4.1/x86_64/\xaarequest_id\xc4\x10\xa7request\xc4\x10\xa8sampling\x82\xabtemperature"
    b"\xcb?\xe9\x99\x99\x99\x99\x99\x9a\xa4seed\xce\xa9max_chars\xcd\x01\xf4\x93\xa9max_chars\xa0\xc4 "
)


def pack(state: SessionState) -> SessionState:
    """Return a state whose tensors are the deflated highest bytes of all numbers, and the other three of each."""
    numbers = [np.frombuffer(tensor, np.uint8).reshape(-1, 4) for tensor in state.tensors]
    highest = b"".join([bytes_of[:, 3].tobytes() for bytes_of in numbers])
    # Runs are the zeros of a beginning; beside them matches are chance, and looking for them takes time.
    deflater = zlib.compressobj(level=1, wbits=_RAW, strategy=zlib.Z_RLE)
    packed = deflater.compress(highest) + deflater.flush()
    return SessionState((packed, *(bytes_of[:, :3].tobytes() for bytes_of in numbers)), state.pending)


def unpack(state: SessionState) -> SessionState:
    """Return the state that was packed; raises zlib.error or ValueError if it was none."""
    packed, *others = state.tensors
    highest = np.frombuffer(zlib.decompress(packed, _RAW), np.uint8)
    tensors, at = [], 0
    for other in others:
        number = np.empty((len(other) // 3, 4), np.uint8)
        number[:, :3] = np.frombuffer(other, np.uint8).reshape(-1, 3)
        number[:, 3] = highest[at : at + len(number)]
        at += len(number)
        tensors.append(number.tobytes())
    if at != len(highest):
        raise ValueError("the numbers have not as many highest bytes as others")
    return SessionState(tuple(tensors), state.pending)


def deflate(body: bytes) -> bytes:
    """Return the body of a segment in fewer bytes."""
    deflater = zlib.compressobj(wbits=_RAW, zdict=_DICTIONARY)
    return deflater.compress(body) + deflater.flush()


def inflate(data: bytes) -> bytes:
    """Return the body that was deflated; raises zlib.error if it was none."""
    inflater = zlib.decompressobj(_RAW, _DICTIONARY)
    body = inflater.decompress(data)
    if not inflater.eof:
        raise zlib.error("it ends too soon")
    return body
