"""Turns that are requested twice, continued, taken over: one text, committed once, whatever happens."""

import asyncio
import itertools
import sqlite3
import uuid
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import closing

import msgspec
import pytest
import pytest_asyncio

from elman_server.domain.errors import (
    EtagMismatchError,
    FingerprintMismatchError,
    InvalidFieldError,
    LeaseLostError,
    PositionOutOfRangeError,
    SessionBusyError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnNotFoundError,
)
from elman_server.domain.events import Chunk, Event, FinishReason
from elman_server.domain.requests import (
    AppendRequest,
    Detail,
    GenerateRequest,
    ResumeRequest,
    SamplingRequest,
    StoppingRequest,
    Target,
)
from elman_server.sessions.records import PLAIN_VERSION, Head, Segment, decode
from elman_server.sessions.session import Expiration, SessionStatus
from elman_server.sessions.stores import SqliteStore
from elman_server.sessions.transitions import Durability
from tests.models import tiny_model
from tests.server.house import PLAIN, House, Text, collected
from tests.server.reader import Reader
from tests.server.replicas import QUICK, Replica, asked, clock_of_now, until

PROMPT = "What is the city but the people?\n"
PENALISED = SamplingRequest(temperature=0.9, seed=11, repetition_penalty=1.3, repetition_window=20)
LONG = 1500  # characters: so long that a turn is still running when something happens to it
NEVER = Durability(lease_seconds=5.0, commit_chars=10**9, commit_seconds=1000.0, patience_seconds=0.0)
PATIENT = Durability(lease_seconds=5.0, commit_chars=40, commit_seconds=0.02, patience_seconds=60.0)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """A model of characters and one of bytes."""
    folder = tmp_path_factory.mktemp("models")
    paths = [
        tiny_model(folder / "tiny.onnx", "gru", 1, 32, seed=3),
        tiny_model(folder / "bytes.onnx", "gru", 1, 32, seed=3, vocabulary=None, name="bytes"),
    ]
    async with House(paths) as house:
        house.store.is_shared = True  # by replicas
        yield house


def new_id() -> bytes:
    """Return a request id."""
    return uuid.uuid4().bytes


async def transcript(house: House, name: str) -> str:
    """Return all that a session has read and written."""
    return (await house.sessions.transcript(name, 0, None)).text


async def undisturbed(house: House, request: GenerateRequest, model: str = "tiny") -> tuple[Text, str]:
    """Run a request on a session of its own; return its text and the state after it."""
    session = await house.session(model, seed=5)
    text = await house.generate(
        Target(session=session.name),
        request.prompt,
        sampling=request.sampling,
        stopping=request.stopping,
        detail=request.detail,
        chunk_chars=request.chunk_chars,
    )
    return text, text.end.state_digest


async def lost(replica: Replica, request: GenerateRequest, num_chunks: int = 3) -> tuple[Text, Reader]:
    """Begin a turn on a server that loses its store after some chunks were read and some are durable."""
    reader = await Reader.of(replica.turns, request)
    reader.gate.set()
    assert reader.text.started is not None
    start = reader.text.started.start_position
    while len(reader.text.chunks) < num_chunks or reader.text.chunks[-1].committed_position == start:
        await asyncio.sleep(0)
        assert not reader.task.done()
    replica.way.is_cut = True
    with pytest.raises(StoreUnavailableError):
        await reader.task
    return reader.text, reader


# Told again


async def test_a_request_that_comes_twice_is_one_turn(house):
    """5: the same events come out, in whatever pieces, and the session has the turn once."""
    session, request_id = await house.session("tiny"), new_id()
    request = asked(session.name, request_id, PROMPT, 200)
    first = await collected(house.turns.generate(request))
    for chunk_chars in (0, 1, 7):
        again = await collected(
            house.turns.generate(asked(session.name, request_id, PROMPT, 200, chunk_chars=chunk_chars))
        )
        assert (again.started, again.text, again.end) == (first.started, first.text, first.end)
    info = await house.sessions.get(session.name)
    assert (info.turn_count, info.etag) == (1, first.end.etag)
    assert await transcript(house, session.name) == PROMPT + first.text


@pytest.mark.parametrize("cell", ["tiny", "bytes"])
async def test_a_finished_turn_is_told_from_every_position(house, cell):
    """5: what follows a position is what the first stream gave after it, to the byte and with the same end."""
    session, request_id = await house.session(cell), new_id()
    request = asked(session.name, request_id, "Gr: ", 60, SamplingRequest(seed=2), chunk_chars=1)
    first = await collected(house.turns.generate(request))
    start = len("Gr: ")
    for position in (None, *range(start, start + 61)):
        again = await collected(house.turns.resume(ResumeRequest(session.name, request_id, position)))
        told = "".join(chunk.text for chunk in first.chunks if chunk.position <= (position or 0))
        assert told + again.text == first.text
        assert (again.started, again.end) == (first.started, first.end)
    assert (await house.sessions.get(session.name)).turn_count == 1


async def test_positions_outside_of_a_turn_are_refused(house):
    """Before the first sampled character and after the last one, with the valid range."""
    session, request_id = await house.session("tiny"), new_id()
    await collected(house.turns.generate(asked(session.name, request_id, PROMPT, 20)))
    start, end = len(PROMPT), len(PROMPT) + 20
    for position in (-1, 0, start - 1, end + 1, 2**62):
        with pytest.raises(PositionOutOfRangeError) as refused:
            await collected(house.turns.resume(ResumeRequest(session.name, request_id, position)))
        assert (refused.value.start, refused.value.end) == (start, end)


async def test_details_are_told_again(house):
    """2: read again, a text has the same log-probabilities and the same likeliest characters."""
    session, request_id = await house.session("tiny"), new_id()
    await house.turns.append(AppendRequest(session.name, "abc"))
    request = asked(session.name, request_id, "de", 40, detail=Detail(log_probability=True, top_n=3))
    first = await collected(house.turns.generate(request))
    for position in (5, 6, 30, 45):
        again = await collected(house.turns.resume(ResumeRequest(session.name, request_id, position)))
        assert again.details == first.details[position - 5 :]


async def test_another_request_under_the_same_id_is_refused(house):
    """Whatever differs, prompt, sampling, stopping or kind: INVALID_ARGUMENT, and nothing changes."""
    session, request_id = await house.session("tiny"), new_id()
    await collected(house.turns.generate(asked(session.name, request_id, PROMPT, 20)))
    info = await house.sessions.get(session.name)
    for other in (
        asked(session.name, request_id, PROMPT + "x", 20),
        asked(session.name, request_id, PROMPT, 21),
        asked(session.name, request_id, PROMPT, 20, SamplingRequest(seed=12)),
        asked(session.name, request_id, PROMPT, 20, rollback=True),
        asked(session.name, request_id, PROMPT, 20, etag=info.etag),
    ):
        with pytest.raises(InvalidFieldError, match="request_id: was used for another request"):
            await collected(house.turns.generate(other))
    with pytest.raises(InvalidFieldError, match="request_id: was used for another request"):
        await house.turns.append(AppendRequest(session.name, PROMPT, request_id=request_id))
    assert await house.sessions.get(session.name) == info


async def test_a_request_id_needs_a_session(house):
    """A turn that keeps nothing cannot be known again: refused rather than ignored."""
    with pytest.raises(InvalidFieldError, match="request_id"):
        await collected(house.turns.generate(GenerateRequest(Target(model="tiny"), PROMPT, request_id=new_id())))


async def test_an_append_that_comes_twice_is_read_once(house):
    """The answer is the same, details too; it cannot be resumed, and another text is refused."""
    session, request_id = await house.session("tiny"), new_id()
    await house.turns.append(AppendRequest(session.name, "ab"))
    request = AppendRequest(session.name, "cdef", detail=Detail(log_probability=True, top_n=2), request_id=request_id)
    first, details = await house.turns.append(request)
    again, same = await house.turns.append(request)
    assert (again, list(same)) == (first, list(details))
    assert await transcript(house, session.name) == "abcdef"
    with pytest.raises(InvalidFieldError, match="of an Append"):
        await collected(house.turns.resume(ResumeRequest(session.name, request_id)))
    with pytest.raises(InvalidFieldError, match="another request"):
        await house.turns.append(AppendRequest(session.name, "cdeg", request_id=request_id))
    both = await asyncio.gather(
        *(house.turns.append(AppendRequest(session.name, "gh", request_id=b"x" * 16)) for _ in range(4)),
        return_exceptions=True,
    )
    assert any(not isinstance(answer, BaseException) for answer in both)
    assert await transcript(house, session.name) == "abcdefgh"


async def test_every_turn_is_known_by_its_id(house, monkeypatch):
    """Recent and older turns are delivered again and never run twice; not one that a rewind cut, nor in a fork."""
    monkeypatch.setattr("elman_server.sessions.transitions.NUM_RECENT", 3)
    session = await house.session("tiny")
    requests = [asked(session.name, new_id(), "a", 2) for _ in range(8)]
    texts = [await collected(house.turns.generate(request)) for request in requests]
    before = await house.sessions.get(session.name)
    for request, text in zip(requests, texts, strict=True):
        resumed = await collected(house.turns.resume(ResumeRequest(session.name, request.request_id)))
        again = await collected(house.turns.generate(request))
        for told in (resumed, again):
            assert (told.text, told.end.state_digest) == (text.text, text.end.state_digest)
    assert await house.sessions.get(session.name) == before
    (fork,) = await house.history.fork(session.name, position=None, count=1)
    for request in requests:
        with pytest.raises(TurnNotFoundError):
            await collected(house.turns.resume(ResumeRequest(fork.name, request.request_id)))
    await house.history.rewind(session.name, position=texts[1].end.position - 1, etag="")
    assert (await collected(house.turns.resume(ResumeRequest(session.name, requests[0].request_id)))).text == texts[
        0
    ].text
    for request_id in (*(request.request_id for request in requests[1:]), new_id()):
        with pytest.raises(TurnNotFoundError):
            await collected(house.turns.resume(ResumeRequest(session.name, request_id)))
    again = await collected(house.turns.generate(requests[1]))
    assert again.end.position == texts[1].end.position + 2


async def test_ids_that_an_earlier_server_stored_are_known(house, monkeypatch):
    """Earlier servers kept the beginning of a request id, where now a hash of it is kept."""
    session = await house.session("tiny")
    requests = [asked(session.name, new_id(), "a", 2) for _ in range(4)]
    with monkeypatch.context() as earlier:
        earlier.setattr("elman_server.sessions.transitions.NUM_RECENT", 2)
        earlier.setattr("elman_server.sessions.transitions.key_of", lambda request_id: request_id[:8])
        texts = [await collected(house.turns.generate(request)) for request in requests]
    again = [await collected(house.turns.generate(request)) for request in requests]
    assert [text.text for text in again] == [text.text for text in texts]
    assert (await house.sessions.get(session.name)).turn_count == len(requests)


async def test_requests_at_once_under_one_id_are_one_turn(house):
    """Sent ten times at once: the session has the turn once, and each caller that reads to the end has all its text."""
    session, request_id = await house.session("tiny"), new_id()
    request = asked(session.name, request_id, PROMPT, 300)
    texts = await asyncio.gather(*(collected(house.turns.generate(request)) for _ in range(10)), return_exceptions=True)
    whole = {text.text for text in texts if isinstance(text, Text)}
    others = [text for text in texts if not isinstance(text, Text)]
    assert all(isinstance(error, LeaseLostError | asyncio.CancelledError) for error in others)
    expected, digest = await undisturbed(house, request)
    assert whole == {expected.text}
    info = await house.sessions.get(session.name)
    assert (info.turn_count, info.state_digest) == (1, digest)
    assert await transcript(house, session.name) == PROMPT + expected.text


# Gone on with


@pytest.mark.parametrize("num_chunks", [1, 2, 5])
@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (PROMPT, {}),
        (PROMPT, {"sampling": PENALISED}),
        (PROMPT, {"chunk_chars": 3}),
        (PROMPT, {"stopping": StoppingRequest(500, ("e a", "th"), include_stop=True)}),
        (PROMPT, {"stopping": StoppingRequest(500, ("zzz", "ee"), include_stop=False)}),
        (PROMPT, {"detail": Detail(log_probability=True, top_n=2)}),
        (PROMPT, {"detail": Detail(top_n=2, effective=True), "sampling": PENALISED}),
    ],
    ids=["plain", "penalised", "pieces", "stop", "stop-not-shown", "details", "effective"],
)
async def test_a_turn_that_was_left_comes_to_its_end(house, prompt, options, num_chunks):
    """5: left by its reader and resumed, here or on another server, the joined text is that of one stream."""
    request_id = new_id()
    sampling = options.get("sampling", PLAIN)
    others = {key: value for key, value in options.items() if key != "sampling"}
    session = await house.session("tiny", seed=5)
    request = asked(session.name, request_id, prompt, 500, sampling, **others)
    expected, digest = await undisturbed(house, request)
    other = Replica(house)
    first = await collected(house.turns.generate(request), num_chunks)
    position = first.chunks[-1].position if first.chunks else None
    for turns in (other.turns,) if num_chunks == 1 else (house.turns, other.turns):
        second = await collected(turns.resume(ResumeRequest(session.name, request_id, position)))
        assert first.text + second.text == expected.text
        assert first.details + second.details == expected.details
        assert (second.end.reason, second.end.stop_string) == (expected.end.reason, expected.end.stop_string)
        assert (second.end.generated_chars, second.end.state_digest) == (expected.end.generated_chars, digest)
        assert second.started is not None
        assert second.started.start_position == 0
    info = await house.sessions.get(session.name)
    assert (info.turn_count, info.state_digest) == (1, digest)
    assert [turn.is_state_equal async for turn in house.history.replay(session.name)] == [True]


async def test_a_turn_may_be_left_again_and_again(house):
    """Cut after every chunk, a turn needs many resumes and ends the same."""
    session, request_id = await house.session("tiny", seed=5), new_id()
    request = asked(session.name, request_id, PROMPT, 400, chunk_chars=40)
    expected, digest = await undisturbed(house, request)
    turns = itertools.cycle([house.turns, Replica(house).turns, Replica(house).turns])
    text, position, number = "", None, 0
    part = await collected(house.turns.generate(request), 1)
    while True:
        number += 1
        text += part.text
        position = part.chunks[-1].position if part.chunks else position
        if part.finished:
            break
        part = await collected(next(turns).resume(ResumeRequest(session.name, request_id, position)), 1)
    assert (text, part.end.state_digest) == (expected.text, digest)
    assert number > 9
    assert (await house.sessions.get(session.name)).turn_count == 1


async def test_a_byte_level_turn_goes_on_within_a_character(house):
    """Bytes of a character that stand on both sides of the cut are one character, or one U+FFFD."""
    sampling = SamplingRequest(seed=2, allowed_characters="Ã¤a")
    expected, _ = await undisturbed(house, asked("x" * 4, b"", "Grüße", 60, sampling, chunk_chars=1), "bytes")
    for num_chunks in range(1, len(expected.chunks), 5):
        session, request_id = await house.session("bytes"), new_id()
        request = asked(session.name, request_id, "Grüße", 60, sampling, chunk_chars=1)
        first = await collected(house.turns.generate(request), num_chunks)
        position = first.chunks[-1].position
        second = await collected(house.turns.resume(ResumeRequest(session.name, request_id, position)))
        assert first.text + second.text == expected.text


async def test_a_byte_level_turn_that_finished_a_character_is_told_again(house):
    """The byte before the turn is not lost: what the turn began with comes again, and stays behind a later position."""
    session, request_id = await house.session("bytes"), new_id()
    await collected(house.turns.generate(asked(session.name, b"", "x", 1, SamplingRequest(allowed_characters="Ã"))))
    request = asked(session.name, request_id, "", 5, SamplingRequest(allowed_characters="¤"), chunk_chars=1)
    first = await collected(house.turns.generate(request))
    assert first.text == "ä" + "\ufffd" * 4
    assert (await collected(house.turns.generate(request))).text == first.text
    later = ResumeRequest(session.name, request_id, first.chunks[0].position)
    assert (await collected(house.turns.resume(later))).text == first.text[1:]


async def test_a_turn_that_others_followed_is_only_told(house):
    """Left, and then another turn: what it had is delivered, with the reason of its end."""
    session, request_id = await house.session("tiny"), new_id()
    first = await collected(house.turns.generate(asked(session.name, request_id, PROMPT, LONG)), 2)
    await house.at_rest(session.name)
    await house.generate(Target(session=session.name), "x", 5)
    again = await collected(house.turns.resume(ResumeRequest(session.name, request_id)))
    assert again.text == first.text
    assert (again.end.reason, again.end.position) == (FinishReason.CANCELLED, len(PROMPT) + len(first.text))
    assert (await house.sessions.get(session.name)).turn_count == 2


async def test_a_turn_that_kept_nothing_is_unknown(house):
    """Rolled back, or left before its first character: the id is free, and the request can be sent again."""
    session, request_id = await house.session("tiny"), new_id()
    request = asked(session.name, request_id, PROMPT, LONG, rollback=True)
    await collected(house.turns.generate(request), 3)
    await house.at_rest(session.name)
    with pytest.raises(TurnNotFoundError):
        await collected(house.turns.resume(ResumeRequest(session.name, request_id)))
    assert (await house.sessions.get(session.name)).etag == session.etag
    assert len((await collected(house.turns.generate(request))).text) == LONG


async def test_a_drained_turn_goes_on_elsewhere(house):
    """SERVER_DRAINING ends the stream, and another server brings it to its end."""
    one, other = Replica(house), Replica(house)
    session, request_id = await house.session("tiny", seed=5), new_id()
    request = asked(session.name, request_id, PROMPT, LONG)
    expected, digest = await undisturbed(house, request)
    reader = await Reader.of(one.turns, request)
    reader.gate.set()
    await one.turns.drain(0)
    first = await reader.task
    assert first.end.reason is FinishReason.SERVER_DRAINING
    second = await other.resume(session.name, request_id, first.end.position)
    assert (first.text + second.text, second.end.state_digest) == (expected.text, digest)


# Lost servers


@pytest.mark.parametrize("rollback", [False, True])
@pytest.mark.parametrize("sampling", [PLAIN, PENALISED], ids=["plain", "penalised"])
async def test_another_server_goes_on_where_one_was_lost(house, sampling, rollback):
    """A server dies in the middle of a turn: another continues the turn from what is durable, exactly."""
    one, other = Replica(house), Replica(house)
    session, request_id = await house.session("tiny", seed=5), new_id()
    request = asked(session.name, request_id, PROMPT, LONG, sampling, rollback=rollback)
    expected, digest = await undisturbed(house, request)
    first, _ = await lost(one, request)
    info = await other.sessions.get(session.name)
    assert (info.status, info.position, info.turn_count) == (SessionStatus.GENERATING, 0, 0)
    assert await transcript(house, session.name) == ""
    second = await other.resume(session.name, request_id, first.chunks[-1].position)
    assert first.text + second.text == expected.text
    assert (second.end.state_digest, second.end.reason) == (digest, FinishReason.MAX_CHARS)
    assert (await house.sessions.get(session.name)).turn_count == 1
    assert await transcript(house, session.name) == PROMPT + expected.text


async def test_a_turn_in_records_of_an_earlier_server_is_continued(house, tmp_path):
    """Of version 2, without the fields that came since: the session is read, and its open turn finishes exactly."""
    file = tmp_path / "sessions.db"
    store = SqliteStore(file, 10)
    one, other = Replica(house, store=store), Replica(house, store=store)
    session = await one.sessions.create(
        model="tiny", version=None, session_id="", seed=5, expiration=Expiration(), labels={}
    )
    whole, request_id = await one.generate(asked(session.name, new_id(), "O", 20)), new_id()
    request = asked(session.name, request_id, PROMPT, LONG)
    first, _ = await lost(one, request)
    with closing(sqlite3.connect(file)) as rows, rows:
        (head,) = rows.execute("SELECT head FROM sessions").fetchone()
        rows.execute("UPDATE sessions SET head = ?", [of_version_2(decode(head, Head, session.name), 3)])
        for number, data in rows.execute("SELECT number, data FROM segments").fetchall():
            segment = of_version_2(decode(data, Segment, session.name, number), 0)
            rows.execute("UPDATE segments SET data = ? WHERE number = ?", [segment, number])
    second = await other.resume(session.name, request_id, first.chunks[-1].position)
    there = await house.session("tiny", seed=5)
    assert (await house.generate(Target(session=there.name), "O", 20, PLAIN)).text == whole.text
    expected = await house.generate(Target(session=there.name), PROMPT, LONG, PLAIN)
    assert first.text + second.text == expected.text
    assert second.end.state_digest == expected.end.state_digest
    assert (await other.sessions.get(session.name)).fingerprint == house.models.get("tiny").fingerprint
    await store.close()


def of_version_2(record: Head | Segment, num_new: int) -> bytes:
    """Return a record as earlier servers stored it: nothing compact, and without the last fields."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(record))
    body = msgspec.msgpack.encode(fields[: len(fields) - num_new])
    return PLAIN_VERSION + zlib.crc32(body).to_bytes(4, "little") + body


async def test_a_server_of_other_arithmetic_does_not_continue_a_turn(house):
    """It says so, and leaves the turn to a server that computes the same; any delivers a turn that is whole."""
    one, other, equal = Replica(house), Replica(house), Replica(house)
    session, request_id = await house.session("tiny", seed=5), new_id()
    request = asked(session.name, request_id, PROMPT, LONG)
    expected, _ = await undisturbed(house, request)
    first, _ = await lost(one, request)
    model = house.models.get("tiny")
    its_own = model.fingerprint
    object.__setattr__(model, "fingerprint", "another machine")
    try:
        with pytest.raises(FingerprintMismatchError, match="another machine") as caught:
            await other.resume(session.name, request_id, first.chunks[-1].position)
        assert (caught.value.expected, caught.value.actual) == (its_own, "another machine")
    finally:
        object.__setattr__(model, "fingerprint", its_own)
    second = await equal.resume(session.name, request_id, first.chunks[-1].position)
    assert first.text + second.text == expected.text
    object.__setattr__(model, "fingerprint", "another machine")
    try:
        assert (await other.resume(session.name, request_id)).text == expected.text
    finally:
        object.__setattr__(model, "fingerprint", its_own)


async def test_what_is_told_to_be_durable_is(house):
    """committed_position grows, never passes the position, and after a loss everything up to it is there."""
    clock = clock_of_now()
    one, other = Replica(house, clock=clock), Replica(house, clock=clock)
    session, request_id = await house.session("tiny", seed=5), new_id()
    first, _ = await lost(one, asked(session.name, request_id, PROMPT, LONG), 8)
    told = [chunk.committed_position for chunk in first.chunks]
    assert told == sorted(told)
    assert told[0] == 0
    assert all(chunk.committed_position <= chunk.position for chunk in first.chunks)
    clock.now += 5.1
    await other.generate(asked(session.name, new_id(), "!", 1))
    text = await transcript(house, session.name)
    kept = text[: -len("!") - 1]
    assert len(kept) >= told[-1] > 0
    assert (PROMPT + first.text).startswith(kept)


async def test_a_stale_writer_is_fenced(house):
    """A server that was paused and comes back cannot commit over a newer turn: its stream ends with LEASE_LOST."""
    clock = clock_of_now()
    one, other = Replica(house, NEVER, clock), Replica(house, clock=clock)
    session = await house.session("tiny", seed=5)
    reader = await Reader.of(one.turns, asked(session.name, new_id(), PROMPT, 300))
    with pytest.raises(SessionBusyError):
        await other.generate(asked(session.name, new_id(), "abc", 10))
    clock.now += 5.1
    newer = await other.generate(asked(session.name, new_id(), "abc", 10))
    with pytest.raises(LeaseLostError):
        await reader.rest()
    assert await transcript(house, session.name) == "abc" + newer.text
    info = await house.sessions.get(session.name)
    assert (info.turn_count, info.etag, info.state_digest) == (1, newer.end.etag, newer.end.state_digest)
    assert not one.sessions.leases.is_running(session.name)


async def test_a_resume_takes_the_turn_over_at_once(house):
    """Who resumes need not wait for the lease; the stream that had the turn ends, and the text is one."""
    one, other = Replica(house), Replica(house)
    session, request_id = await house.session("tiny", seed=5), new_id()
    request = asked(session.name, request_id, PROMPT, LONG)
    expected, digest = await undisturbed(house, request)
    reader = await Reader.of(one.turns, request)
    second = await other.resume(session.name, request_id)
    with pytest.raises(LeaseLostError):
        await reader.rest()
    assert (second.text, second.end.state_digest) == (expected.text, digest)
    assert await transcript(house, session.name) == PROMPT + expected.text
    assert (await house.sessions.get(session.name)).turn_count == 1


async def test_a_lease_is_renewed_while_nothing_can_become_durable(house):
    """A reader that stands still keeps its turn for longer than the lease."""
    clock = clock_of_now()
    one, other = Replica(house, clock=clock), Replica(house, clock=clock)
    session = await house.session("tiny")
    reader = await Reader.of(one.turns, asked(session.name, new_id(), PROMPT, LONG))
    for _ in range(4):
        clock.now += 4
        before = one.way.num_commits
        await one.way.committed(before + 2)
        with pytest.raises(SessionBusyError):
            await other.generate(asked(session.name, new_id(), "abc", 10))
    await reader.rest()


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
async def test_a_clock_that_is_set_takes_no_lease_away(house, jump, monkeypatch):
    """A day forward or back, a turn stays its server's, before it renews the lease and after; then it is whole."""
    clock = clock_of_now()
    monkeypatch.setattr(house.store, "_clock", clock)
    one, other = Replica(house, clock=clock), Replica(house, clock=clock)
    session = await house.session("tiny", seed=5)
    request = asked(session.name, new_id(), PROMPT, 300)
    expected, _ = await undisturbed(house, request)
    reader = await Reader.of(one.turns, request)
    clock.ahead = jump
    for passes, num_commits in ((0, 0), (4, 2)):
        clock.now += passes
        await one.way.committed(one.way.num_commits + num_commits)
        with pytest.raises(SessionBusyError):
            await other.generate(asked(session.name, new_id(), "abc", 10))
    await reader.rest()
    assert await transcript(house, session.name) == PROMPT + expected.text


async def test_cancel_reaches_a_turn_on_another_server(house):
    """Cancel ends the turn there, committed as far as its reader had it; and one whose server is down, here."""
    clock = clock_of_now()
    one, other = Replica(house, clock=clock), Replica(house, clock=clock)
    session = await house.session("tiny")
    reader = await Reader.of(one.turns, asked(session.name, new_id(), PROMPT, 100_000))
    reader.gate.set()
    info = await other.turns.cancel(session.name)
    text = await reader.task
    assert text.end.reason is FinishReason.CANCELLED
    assert (info.position, info.etag) == (len(PROMPT) + len(text.text), text.end.etag)
    assert await transcript(house, session.name) == PROMPT + text.text

    first, _ = await lost(one, asked(session.name, new_id(), "x", LONG))
    clock.now += 5.1
    info = await other.turns.cancel(session.name)
    assert (info.status, info.turn_count) == (SessionStatus.ACTIVE, 2)
    assert info.position >= first.chunks[-1].committed_position


async def test_deletion_reaches_a_turn_on_another_server(house):
    """With its next commit the turn finds its session gone, and ends."""
    one, other = Replica(house), Replica(house)
    session = await house.session("tiny")
    reader = await Reader.of(one.turns, asked(session.name, new_id(), PROMPT, 100_000))
    await other.sessions.delete(session.name, etag="")
    with pytest.raises(SessionNotFoundError):
        await reader.rest()


async def test_an_etag_holds_while_a_turn_becomes_durable(house):
    """Leases and interim commits are not seen: the etag of before the turn is the session's until its end."""
    one, other = Replica(house), Replica(house)
    session = await house.session("tiny")
    reader = await Reader.of(one.turns, asked(session.name, new_id(), PROMPT, LONG))
    reader.gate.set()
    await one.way.committed(5)
    assert (await other.sessions.get(session.name)).etag == session.etag
    text = await reader.task
    assert (await other.sessions.get(session.name)).etag == text.end.etag != session.etag
    with pytest.raises(EtagMismatchError):
        await other.generate(asked(session.name, new_id(), "x", 1, etag=session.etag))


# A store that is gone


async def test_a_turn_outlives_a_short_loss_of_the_store(house):
    """Within the server's patience the stream continues; its end is reported when it is stored, and not before."""
    one = Replica(house, PATIENT)
    session, request_id = await house.session("tiny", seed=5), new_id()
    request = asked(session.name, request_id, PROMPT, LONG)
    expected, digest = await undisturbed(house, request)
    reader = await Reader.of(one.turns, request)
    one.way.is_cut = True
    reader.gate.set()
    await until(lambda: reader.text.chunks[-1].position == len(PROMPT) + LONG)
    assert reader.text.finished is None
    assert {chunk.committed_position for chunk in reader.text.chunks} == {reader.text.chunks[0].committed_position}
    one.way.is_cut = False
    text = await reader.task
    assert (text.text, text.end.state_digest) == (expected.text, digest)
    assert await transcript(house, session.name) == PROMPT + text.text


async def test_a_commit_whose_answer_is_lost_is_not_done_twice(house):
    """The store did it and could not say so: the turn finds it done, at its beginning, in its middle and at its end."""
    for number in (0, 1, 2, 4):
        one = Replica(house, PATIENT)
        session = await house.session("tiny", seed=5)
        request = asked(session.name, new_id(), PROMPT, LONG)
        reader = await Reader.of(one.turns, request)
        reader.gate.set()
        await one.way.committed(number)
        one.way.is_deaf = True
        text = await reader.task
        assert len(text.text) == LONG
        assert await transcript(house, session.name) == PROMPT + text.text
        info = await house.sessions.get(session.name)
        assert (info.turn_count, info.position) == (1, len(PROMPT) + LONG)
        assert [turn.is_state_equal async for turn in house.history.replay(session.name)] == [True]


async def test_a_commit_that_is_carried_out_late_is_known_by_its_position(house):
    """A held commit arrives after another one with more characters was sent: no character is lost, none comes twice."""
    for number in (0, 1, 3):
        one = Replica(house, PATIENT)
        session = await house.session("tiny", seed=5)
        reader = await Reader.of(one.turns, asked(session.name, new_id(), PROMPT, LONG, chunk_chars=7))
        reader.gate.set()
        await one.way.committed(number)
        one.way.is_late = True
        text = await reader.task
        assert len(text.text) == LONG
        assert await transcript(house, session.name) == PROMPT + text.text
        assert all([turn.is_state_equal async for turn in house.history.replay(session.name)])


@pytest.mark.parametrize("include_stop", [True, False])
async def test_a_turn_that_was_lost_at_its_very_end_ends_the_same(house, include_stop):
    """All of its text is durable but not its end: Resume reports the end that it had, and samples nothing more."""
    expected, _ = await undisturbed(house, asked("x" * 4, b"", PROMPT, 300))
    stop = expected.text[200:204]
    for stopping in (StoppingRequest(300), StoppingRequest(300, ("zzzz", stop), include_stop)):
        one, other = Replica(house), Replica(house)
        session, request_id = await house.session("tiny", seed=5), new_id()
        request = asked(session.name, request_id, PROMPT, 300, stopping=stopping, chunk_chars=10)
        whole, digest = await undisturbed(house, request)

        async def lost(*_: object, replica: Replica = one) -> AsyncGenerator[tuple[Event, ...], None]:
            await replica.way.committed(replica.way.num_commits + 2)
            replica.way.is_cut = True
            raise StoreUnavailableError("", 1.0)
            yield ()

        one.turns._ended = lost  # type: ignore[method-assign, assignment]
        with pytest.raises(StoreUnavailableError):
            await collected(one.turns.generate(request))
        second = await other.resume(session.name, request_id, len(PROMPT) + len(whole.text))
        assert (second.text, second.end.reason, second.end.stop_string) == ("", whole.end.reason, whole.end.stop_string)
        assert second.end.state_digest == digest


async def test_nothing_is_acknowledged_that_is_not_stored(house):
    """A store that is down at the start refuses a turn, and one that is down at the end gives no Finished."""
    one = Replica(house)
    session = await house.session("tiny")
    one.way.is_cut = True
    for call in (
        one.generate(asked(session.name, new_id(), PROMPT, 5)),
        one.turns.append(AppendRequest(session.name, "abc")),
        one.turns.cancel(session.name),
        one.history.rewind(session.name, position=0, etag=""),
    ):
        with pytest.raises(StoreUnavailableError):
            await call
    one.way.is_cut = False
    assert (await one.sessions.get(session.name)).etag == session.etag
    assert (await one.generate(asked(session.name, new_id(), PROMPT, 5))).end.position == len(PROMPT) + 5


async def test_many_servers_take_a_turn_from_one_another(house):
    """Five servers that lose their store again and again bring one text to its end, with no character twice."""
    session, request_id = await house.session("tiny", seed=5), new_id()
    request = asked(session.name, request_id, PROMPT, LONG)
    expected, digest = await undisturbed(house, request)
    text, position = "", len(PROMPT)
    for number in range(5):
        one = Replica(house, QUICK)
        events = (
            one.turns.resume(ResumeRequest(session.name, request_id, position))
            if number
            else one.turns.generate(request)
        )
        try:
            async for event in (event async for happened in events for event in happened):
                if isinstance(event, Chunk):
                    text, position = text + event.text, event.position
                    one.way.is_cut = len(text) > 200 * (number + 1)
        except StoreUnavailableError:
            continue
    second = await Replica(house).resume(session.name, request_id, position)
    assert text + second.text == expected.text
    assert second.end.state_digest == digest
