"""Records: a session as it is stored: versioned, checksummed bytes. No pickle.

A session is a *head*, rewritten by every commit, and *segments*, which are only ever added, by turns, and dropped, by a
rewind: a turn never rewrites the past. A turn is one segment or, if it is long, several; the first has its parameters,
the last its outcome. What a running turn has made durable are segments beyond those that the head counts, and `Open`
in the head; the rest of the head shows the session before that turn.
"""

from __future__ import annotations

import array
import zlib
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec.structs import replace

from elman_server.domain.errors import CorruptRecordError
from elman_server.domain.events import FinishReason
from elman_server.domain.requests import Detail, SamplingRequest
from elman_server.domain.state import DEFAULT, SessionState
from elman_server.sessions import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VERSION: Final = b"\x04"
UNBOUND_VERSION: Final = b"\x03"  # of earlier servers: its checksum does not know where the record belongs,
PLAIN_VERSION: Final = b"\x02"  # and nothing in this one is compact
HEAD: Final = -1  # the place of a head; that of a segment is its number in the session
_READ: Final = f"this server reads {PLAIN_VERSION.hex()} to {VERSION.hex()}"
_CRC_BYTES: Final = 4
_BIAS_BYTES: Final = 100
OBJECT_BYTES: Final = 400  # what Python's own structures take of a record that is kept as an object
_ID_TYPES: Final = {1: "B", 2: "H", 4: "I"}


class Parameters(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a turn was asked for; enough to continue it, or to run it again.

    Attributes:
        request_id: 16 bytes; empty: none.
        request: a digest of the whole request, which shows whether another one under the same id is equal.
        fingerprint: of the arithmetic that ran the turn.
        sampling: as asked for, but with its seed; None: the turn only read.
        symbols: of a session's first turn: the model's, in the order of ids, none of a model of bytes. With them the
            text can be read when no server has the model.
    """

    fingerprint: str
    request_id: bytes = b""
    request: bytes = b""
    sampling: SamplingRequest | None = None
    max_chars: int = 0
    stop_strings: tuple[str, ...] = ()
    include_stop: bool = False
    rollback: bool = False
    log_probability: bool = False
    top_n: int = 0
    chunk_chars: int = 0
    effective: bool = False
    symbols: tuple[str, ...] | None = None

    @property
    def num_bytes(self) -> int:
        """Size in memory of what callers choose, about."""
        stops = sum(map(len, self.stop_strings))
        if self.sampling is None:
            return stops
        listed = len(self.sampling.allowed_characters) + len(self.sampling.banned_characters)
        return stops + listed + _BIAS_BYTES * len(self.sampling.logit_bias)

    @property
    def detail(self) -> Detail:
        """What to report of each character."""
        return Detail(self.log_probability, self.top_n, self.effective)


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """How a turn ended: why, at which stop string, and with which state (`SessionState.digest`, raw)."""

    reason: FinishReason
    stop_string: str
    state_digest: bytes


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A turn or a part of it: the ids from `start` on, of which those before `prompt_end` were fed.

    Attributes:
        parameters: of the turn that begins here; None: the segment continues the turn before.
        outcome: of a turn that ended here.
        state: at the end, now and then: a checkpoint, from which a rewind needs not read so much again.
    """

    start: int
    prompt_end: int
    id_bytes: int
    packed: bytes
    parameters: Parameters | None = None
    outcome: Outcome | None = None
    state: SessionState | None = None

    @classmethod
    def of(  # noqa: D417  the others are the attributes
        cls,
        start: int,
        prompt: Sequence[int],
        sampled: Sequence[int],
        *,
        parameters: Parameters | None = None,
        outcome: Outcome | None = None,
        state: SessionState | None = None,
    ) -> Segment:
        """Pack a turn's ids in as few bytes as the largest takes.

        Args:
            prompt, sampled: ids that were fed, and ids that were sampled after them.
        """
        size, packed = pack([*prompt, *sampled])
        return cls(start, start + len(prompt), size, packed, parameters, outcome, state)

    @property
    def ids(self) -> list[int]:
        """The ids that were fed and sampled."""
        return unpack(self.id_bytes, self.packed)

    @property
    def end(self) -> int:
        """One past the last position."""
        return self.start + len(self.packed) // self.id_bytes

    @property
    def num_bytes(self) -> int:
        """Size in memory, about: what a quota counts."""
        state = self.state.num_bytes if self.state else 0
        return OBJECT_BYTES + len(self.packed) + state + (self.parameters.num_bytes if self.parameters else 0)


class OpenTurn(msgspec.Struct, frozen=True, array_like=True):
    """A turn that has begun and is not committed, and the lease of the server that runs it.

    Attributes:
        token: of this run of the turn; another server that takes it over has another one. Only its holder may write.
        writer: the server that runs it.
        lease_expires: unix seconds after which another server may end the turn; renewed by every commit of the turn.
        start, prompt_end: the positions before and after its prompt.
        position: up to where the turn is durable.
        num_segments: of the session, with those that the turn has made durable.
        checkpoint: the position of the last checkpoint in them.
        prompt_bytes, prompt: the prompt's ids, packed, until they are durable in a segment.
        state: at `position`; None: the head's.
        is_continuation: whether the turn was cut off, and committed so, before.
        is_cancelled: a caller asked for its end.
    """

    token: bytes
    writer: str
    lease_expires: float
    parameters: Parameters
    start: int
    prompt_end: int
    position: int
    num_segments: int
    checkpoint: int
    prompt_bytes: int = 1
    prompt: bytes = b""
    state: SessionState | None = None
    is_continuation: bool = False
    is_cancelled: bool = False


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a session is now.

    Attributes:
        model, model_version, model_digest: what it is pinned to.
        created, updated: unix seconds.
        ttl: idle seconds; None if `expires` is a fixed moment.
        expires: unix seconds.
        last: unix seconds that no use postpones.
        owner: whose it is; empty: of nobody who was known, as all from before there were owners.
        etag: another one with every change that callers can see.
        num_segments: how many segments belong to committed turns.
        checkpoint: the position of the last checkpoint in them.
        last_token: of the turn that was committed last.
        recent: the last turns that had a request id: its key, and the index of the turn's first segment.
        forked_from: the session and the position in it that this one was made from.
        initial_state: the name of the one that it started from.
        older: of the turns before those of `recent`, four bytes of each key.
        creation: the digest of the request that made it, if that had a request id.
        fingerprint: of the arithmetic that ran the last turn; empty: none did, or an earlier server stored it.
    """

    model: str
    model_version: str
    model_digest: str
    created: float
    updated: float
    ttl: float | None
    expires: float
    last: float
    seed: int
    labels: dict[str, str]
    position: int
    turn_count: int
    state: SessionState
    owner: str = ""
    etag: int = 0
    num_segments: int = 0
    checkpoint: int = 0
    last_token: bytes = b""
    recent: list[tuple[bytes, int]] = []
    forked_from: tuple[str, int] | None = None
    open: OpenTurn | None = None
    initial_state: str = DEFAULT
    older: bytes = b""
    creation: bytes = b""
    fingerprint: str = ""

    @property
    def num_bytes(self) -> int:
        """Size in memory, about: what a quota counts."""
        labels = sum(len(key) + len(value) for key, value in self.labels.items())
        running = self.open.state.num_bytes if self.open and self.open.state else 0
        return OBJECT_BYTES + self.state.num_bytes + running + labels + len(self.older)


_Kind = TypeVar("_Kind", Head, Segment)


def pack(ids: Sequence[int]) -> tuple[int, bytes]:
    """Return ids as bytes, and how many bytes one takes."""
    size = next(size for size in _ID_TYPES if max(ids, default=0) < 1 << 8 * size)
    return size, array.array(_ID_TYPES[size], ids).tobytes()


def unpack(size: int, packed: bytes) -> list[int]:
    """Return the ids that were packed."""
    return array.array(_ID_TYPES[size], packed).tolist()


def encode(record: Head | Segment, session: str, place: int = HEAD) -> bytes:
    """Return the stored bytes of a session's record: version, CRC-32, msgpack in a compact form."""
    return bound(body_of(record), session, place)


def body_of(record: Head | Segment) -> bytes:
    """Return what of the stored bytes is the same in every session."""
    body = msgspec.msgpack.encode(_with_states(record, codec.pack))
    return codec.deflate(body) if isinstance(record, Segment) else body


def bound(body: bytes, session: str, place: int) -> bytes:
    """Return the stored bytes of a record with that body."""
    return VERSION + _checksum(VERSION, body, session, place) + body


def decode(data: bytes, kind: type[_Kind], session: str, place: int = HEAD) -> _Kind:
    """Return what was stored.

    Raises:
        CorruptRecordError: another version, a changed byte, or a record of another session or place.
    """
    version = data[:1]
    if version not in {VERSION, UNBOUND_VERSION, PLAIN_VERSION}:
        raise CorruptRecordError(f"a stored record has version {version.hex() or 'none'}, {_READ}")
    body = data[1 + _CRC_BYTES :]
    if _checksum(version, body, session, place) != data[1 : 1 + _CRC_BYTES]:
        raise CorruptRecordError("a stored record does not match its checksum, or belongs elsewhere")
    try:
        if version == PLAIN_VERSION:
            return msgspec.msgpack.decode(body, type=kind)
        record = msgspec.msgpack.decode(codec.inflate(body) if kind is Segment else body, type=kind)
        whole = _with_states(record, codec.unpack)
    except (msgspec.MsgspecError, zlib.error, ValueError) as error:
        raise CorruptRecordError("a stored record cannot be read") from error
    assert isinstance(whole, kind)
    return whole


def _checksum(version: bytes, body: bytes, session: str, place: int) -> bytes:
    # Of the version, too: one flipped bit would make an old record of a new one.
    start = 0 if version == PLAIN_VERSION else zlib.crc32(version)
    if version == VERSION:
        start = zlib.crc32(f"{session} {place}".encode(), start)
    return zlib.crc32(body, start).to_bytes(_CRC_BYTES, "little")


def _with_states(record: Head | Segment, change: Callable[[SessionState], SessionState]) -> Head | Segment:
    """Return a record with each state in it changed."""
    if record.state is not None:
        record = replace(record, state=change(record.state))
    if isinstance(record, Head) and record.open is not None and record.open.state is not None:
        record = replace(record, open=replace(record.open, state=change(record.open.state)))
    return record
