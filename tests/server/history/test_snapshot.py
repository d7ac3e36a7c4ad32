"""Snapshots: what was sealed is unsealed, and nothing else is."""

import asyncio
import hashlib
import hmac
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.requests import SamplingRequest
from elman_server.domain.state import SessionState
from elman_server.history.snapshot import seal, unseal
from elman_server.sessions.records import Head, Parameters, Segment

KEY = b"k" * 32
HEAD = Head("m", "1", "0" * 64, 1.0, 2.0, 60.0, 62.0, 90.0, 2**64 - 1, {"a": "b"}, 3, 1, SessionState((b"abcd",), 2))
SEGMENTS = [Segment.of(0, [1], [2, 3], parameters=Parameters("f", sampling=SamplingRequest(seed=2**64 - 1)))]
SNAPSHOT = asyncio.run(seal(KEY, HEAD, SEGMENTS))


async def test_a_snapshot_holds_the_session():
    """Head and segments come back as they were, in little more than their own size."""
    assert await unseal(KEY, SNAPSHOT) == (HEAD, SEGMENTS)
    assert len(SNAPSHOT) < 400


@pytest.mark.parametrize("flip", [1, 0x80, 0xFF])
async def test_a_changed_byte_is_refused(flip):
    """Wherever it is: in the beginning, the signature, the checksum or the session."""
    for at in range(len(SNAPSHOT)):
        changed = bytearray(SNAPSHOT)
        changed[at] ^= flip
        with pytest.raises(InvalidFieldError) as refused:
            await unseal(KEY, bytes(changed))
        assert refused.value.field == "snapshot"


async def test_a_snapshot_that_was_cut_or_grew_is_refused():
    """Every beginning of one, and one with something behind it."""
    for size in range(len(SNAPSHOT)):
        with pytest.raises(InvalidFieldError):
            await unseal(KEY, SNAPSHOT[:size])
    with pytest.raises(InvalidFieldError, match="damaged"):
        await unseal(KEY, SNAPSHOT + b"\0")


async def test_a_snapshot_of_another_key_is_refused():
    """The error says so, and not that it is damaged; a forged checksum is detected."""
    with pytest.raises(InvalidFieldError, match="another key"):
        await unseal(b"K" * 32, SNAPSHOT)
    other = await seal(b"x" * 32, HEAD, [])
    forged = SNAPSHOT[:6] + SNAPSHOT[6:38] + other[38:]
    with pytest.raises(InvalidFieldError, match="another key"):
        await unseal(KEY, forged)


async def test_another_version_is_refused():
    """With both versions in the sentence."""
    with pytest.raises(InvalidFieldError, match="version 3, this server reads 2"):
        await unseal(KEY, SNAPSHOT[:5] + b"\3" + SNAPSHOT[6:])


async def test_a_snapshot_of_an_earlier_server_is_read():
    """Version 1 was one array of head and segments."""
    body = msgspec.msgpack.encode([HEAD, SEGMENTS])
    start, checksum = b"ELMAN\1", hashlib.sha256(body).digest()
    assert await unseal(KEY, start + hmac.digest(KEY, start + checksum, "sha256") + checksum + body) == (HEAD, SEGMENTS)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"ELMAN\1" + rest))
def test_other_bytes_are_refused(data):
    """Garbage is an InvalidFieldError and nothing else."""
    with pytest.raises(InvalidFieldError):
        asyncio.run(unseal(KEY, data))


async def test_large_snapshots_are_found_damaged_too():
    """Random flips in one of a long transcript."""
    chance = random.Random(1)
    segments = [
        Segment.of(n * 1000, [], chance.choices(range(65), k=1000), parameters=Parameters("f")) for n in range(50)
    ]
    snapshot = await seal(KEY, HEAD, segments)
    assert len(snapshot) < 50 * 1050 + 400
    for _ in range(200):
        changed = bytearray(snapshot)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        with pytest.raises(InvalidFieldError):
            await unseal(KEY, bytes(changed))
