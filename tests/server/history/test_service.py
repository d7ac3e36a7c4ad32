"""Fork, rewind and replay over a real engine: whatever was done, the text is that of an undisturbed run."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest
import pytest_asyncio
import structlog

from elman_server.domain.errors import (
    EtagMismatchError,
    InvalidFieldError,
    ModelMismatchError,
    PositionOutOfRangeError,
    QuotaError,
    SessionBusyError,
    SessionNotFoundError,
)
from elman_server.domain.requests import (
    AppendRequest,
    Creation,
    GenerateRequest,
    SamplingRequest,
    StoppingRequest,
    Target,
)
from elman_server.engine import prefill
from elman_server.history import service as history_module
from elman_server.sessions.records import Segment
from elman_server.sessions.session import Filter, LabelChange
from elman_server.sessions.stores import MemoryStore
from elman_server.sessions.transitions import CHECKPOINT_CHARS, Change
from tests.models import CHARACTERS, tiny_model
from tests.server.house import PLAIN, House
from tests.server.reader import Reader

PROMPT = "The people\n"
TALK = [(PROMPT, 14), ("ROMEO:", 0), ("", 9), ("\nO", 10)]  # prompts, and how much is sampled after them
PENALISED = SamplingRequest(temperature=0.9, seed=11, repetition_penalty=1.3, repetition_window=20)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """A model of characters and one of bytes."""
    folder = tmp_path_factory.mktemp("models")
    paths = [
        tiny_model(folder / "tiny.onnx", "lstm", 2, 32, seed=3),
        tiny_model(folder / "bytes.onnx", "gru", 1, 32, seed=3, vocabulary=None, name="bytes"),
    ]
    async with House(paths) as house:
        yield house


async def transcript(house: House, name: str) -> str:
    """Return all that a session has read and written."""
    return (await house.sessions.transcript(name, 0, None)).text


async def talk(house: House, name: str, sampling: SamplingRequest = PLAIN) -> str:
    """Take four turns of all kinds; return the transcript."""
    for prompt, num_sampled in TALK:
        if num_sampled:
            await house.generate(Target(session=name), prompt, num_sampled, sampling)
        else:
            await house.turns.append(AppendRequest(name, prompt))
    return await transcript(house, name)


async def go_on(house: House, name: str, text: str, position: int, sampling: SamplingRequest = PLAIN) -> None:
    """Take the turns of `talk` from a position in them to their end."""
    start = 0
    for prompt, sampled in TALK:
        end = start + len(prompt) + sampled
        if position < end:
            rest = prompt[max(0, position - start) :]
            left = end - max(position, start + len(prompt))
            if left:
                await house.generate(Target(session=name), rest, left, sampling)
            else:
                await house.turns.append(AppendRequest(name, rest))
        start = end
    assert await transcript(house, name) == text


# Fork


@pytest.mark.parametrize("sampling", [PLAIN, PENALISED], ids=["plain", "penalised"])
async def test_a_fork_at_every_position_goes_on_as_the_session_did(house, sampling):
    """1: forked anywhere, within prompts and texts, the rest of the turns gives the same text and the same state."""
    session = await house.session("tiny", seed=5)
    text = await talk(house, session.name, sampling)
    expected = await house.sessions.get(session.name)
    for position in range(0, len(text) + 1, 1 if sampling is PLAIN else 4):
        (fork,) = await house.history.fork(session.name, position=position, count=1)
        assert (fork.position, fork.forked_from, fork.seed) == (position, (session.name, position), 5)
        assert await transcript(house, fork.name) == text[:position]
        await go_on(house, fork.name, text, position, sampling)
        after = await house.sessions.get(fork.name)
        assert after.state_digest == expected.state_digest
        await house.sessions.delete(fork.name, etag="")
    assert await house.sessions.get(session.name) == expected


async def test_forks_are_sessions_of_their_own(house):
    """What happens to one shows in no other; they are as many as were asked for, with the labels of their origin."""
    session = await house.session("tiny")
    text = await talk(house, session.name)
    await house.sessions.update(session.name, etag="", labels=LabelChange({"team": "red"}), expiration=None)
    forks = await house.history.fork(session.name, position=None, count=5)
    assert len({fork.name for fork in forks} | {session.name}) == 6
    assert {fork.position for fork in forks} == {len(text)}
    assert all(fork.labels == {"team": "red"} for fork in forks)
    texts = []
    for number, fork in enumerate(forks):
        sampled = await house.generate(Target(session=fork.name), "", 40, SamplingRequest(seed=number))
        texts.append(sampled.text)
    assert len(set(texts)) == 5
    for fork, drawn_text in zip(forks, texts, strict=True):
        assert await transcript(house, fork.name) == text + drawn_text
    assert await transcript(house, session.name) == text


async def test_during_a_turn_a_session_is_what_it_was(house):
    """3: forked, exported, read: a running turn is not there yet, however much is durable; new labels outlast it."""
    session = await house.session("tiny")
    before = await house.generate(Target(session=session.name), PROMPT, 5)
    request = GenerateRequest(Target(session=session.name), "", PLAIN, StoppingRequest(100_000))
    reader = await Reader.of(house.turns, request)
    (fork,) = await house.history.fork(session.name, position=None, count=0)
    with pytest.raises(PositionOutOfRangeError):
        await house.history.fork(session.name, position=len(PROMPT) + 6, count=1)
    copy = await house.history.restore(await house.history.export(session.name), "")
    assert fork.position == copy.position == len(PROMPT) + 5
    assert await transcript(house, session.name) == PROMPT + before.text
    await house.sessions.update(session.name, etag=before.end.etag, labels=LabelChange({"a": "b"}), expiration=None)
    with pytest.raises(SessionBusyError):
        await house.history.rewind(session.name, position=0, etag="")
    reader.gate.set()
    after = await house.turns.cancel(session.name)
    text = await reader.task
    assert (after.labels, after.position) == ({"a": "b"}, text.end.position)
    for other in (fork, copy):
        assert (await house.generate(Target(session=other.name), "", 5)).end.position == len(PROMPT) + 10


@pytest.mark.parametrize("count", [-1, 101, 2**31 - 1])
async def test_forks_of_one_call_are_bounded(house, count):
    """Too many are refused and none is made."""
    session = await house.session("tiny")
    with pytest.raises(InvalidFieldError, match="count"):
        await house.history.fork(session.name, position=None, count=count)


async def test_forks_that_find_no_room_are_all_forgotten(tmp_path):
    """Either all forks are made or none: what was made before the quota is reached is deleted again."""
    async with House([tiny_model(tmp_path / "tiny.onnx")], store=MemoryStore(100, 2**30)) as small:
        session = await small.session("tiny")
        small.sessions.leases.take(session.name).is_found = True  # in use: not evicted to make room
        create, made = small.store.create, 0

        async def limited(*args):
            nonlocal made
            made += 1
            if made > 3:
                raise QuotaError("sessions", 3, 1.0)
            return await create(*args)

        small.store.create = limited  # type: ignore[method-assign]
        with pytest.raises(QuotaError):
            await small.history.fork(session.name, position=None, count=5)
        page = await small.sessions.list(page_size=0, page_token="", filter=Filter())
        assert [info.name for info in page.sessions] == [session.name]


async def test_a_fork_that_comes_twice_makes_its_sessions_once(house):
    """As many as before, also if the session has moved on or is deleted; another request under its id is refused."""
    session = await house.session("tiny")
    text = await talk(house, session.name)
    once = Creation(uuid.uuid4().bytes, b"digest")
    forks = await house.history.fork(session.name, position=None, count=3, creation=once)
    await house.generate(Target(session=session.name), "x", 5)
    assert await house.history.fork(session.name, position=None, count=3, creation=once) == forks

    await house.sessions.delete(forks[1].name, etag="")  # a fork that was cut off: the second is missing
    again = await house.history.fork(session.name, position=None, count=3, creation=once)
    assert [fork.name for fork in again] == [fork.name for fork in forks]
    assert {fork.position for fork in again} == {len(text)}

    with pytest.raises(InvalidFieldError, match="request_id"):
        await house.history.fork(session.name, position=0, count=3, creation=replace(once, digest=b"other"))
    await house.sessions.delete(session.name, etag="")
    assert await house.history.fork(session.name, position=None, count=3, creation=once) == again


async def test_an_import_that_comes_twice_makes_one_session(house):
    """The snapshot is restored once for each request id, and as often as wanted without one."""
    session = await house.session("tiny")
    await talk(house, session.name)
    snapshot = await house.history.export(session.name)
    once = Creation(uuid.uuid4().bytes, b"digest")
    first = await house.history.restore(snapshot, "", once)
    assert await house.history.restore(snapshot, "", once) == first
    assert (await house.history.restore(snapshot, "")).name != first.name


async def test_the_past_of_a_missing_session_is_missing(house):
    """Nothing can be done with a session that is not there."""
    for call in (
        house.history.fork("unknown", position=None, count=1),
        house.history.rewind("unknown", position=0, etag=""),
        house.history.export("unknown"),
        anext(house.history.replay("unknown")),
    ):
        with pytest.raises(SessionNotFoundError):
            await call


# Rewind


async def test_a_rewind_to_every_position_goes_on_as_the_session_did(house):
    """1: from the end back to 0, and each time forward again to the same text and state."""
    session = await house.session("tiny", seed=5)
    text = await talk(house, session.name)
    expected = await house.sessions.get(session.name)
    for position in range(len(text), -1, -2):
        info = await house.history.rewind(session.name, position=position, etag="")
        assert (info.position, await transcript(house, session.name)) == (position, text[:position])
        assert info.etag != expected.etag or position == len(text)
        await go_on(house, session.name, text, position)
        assert (await house.sessions.get(session.name)).state_digest == expected.state_digest
    await house.history.rewind(session.name, position=0, etag="")
    info = await house.sessions.get(session.name)
    assert (info.position, info.turn_count, info.state_digest) == (0, 0, session.state_digest)


async def test_a_rewind_forgets_the_turns_that_came_after(house):
    """Turns after the position are removed, one that it cuts ends there, and others are as they were."""
    session = await house.session("tiny")
    await talk(house, session.name)
    before = (await house.sessions.transcript(session.name, 0, None)).turns
    cut = before[2]
    info = await house.history.rewind(session.name, position=cut.end - 4, etag="")
    after = (await house.sessions.transcript(session.name, 0, None)).turns
    assert after[:2] == before[:2]
    assert (after[2].start, after[2].end, after[2].outcome) == (cut.start, cut.end - 4, None)
    assert (len(after), info.turn_count) == (3, 3)


async def test_a_rewind_has_its_bounds_and_conditions(house):
    """Outside of the transcript, under a stale etag or during a turn it is refused and changes nothing."""
    session = await house.session("tiny")
    await house.generate(Target(session=session.name), PROMPT, 10)
    info = await house.sessions.get(session.name)
    for position in (-1, len(PROMPT) + 11, 2**63 - 1):
        with pytest.raises(PositionOutOfRangeError) as refused:
            await house.history.rewind(session.name, position=position, etag="")
        assert (refused.value.start, refused.value.end) == (0, len(PROMPT) + 10)
    with pytest.raises(EtagMismatchError):
        await house.history.rewind(session.name, position=0, etag=session.etag)
    assert await house.sessions.get(session.name) == info
    request = GenerateRequest(Target(session=session.name), "", PLAIN, StoppingRequest(100_000))
    reader = await Reader.of(house.turns, request)
    with pytest.raises(SessionBusyError):
        await house.history.rewind(session.name, position=0, etag="")
    reader.gate.set()
    await house.turns.cancel(session.name)
    await reader.task
    assert (await house.history.rewind(session.name, position=3, etag="")).position == 3


async def test_a_long_session_is_read_again_from_its_checkpoints(house, monkeypatch):
    """A state is kept with a turn every 4,096 characters, so that a rewind reads no more than one turn and these."""
    session = await house.session("tiny")
    text = "".join(random.Random(1).choices(CHARACTERS, k=3 * CHECKPOINT_CHARS))
    for at in range(0, len(text), 1000):
        await house.turns.append(AppendRequest(session.name, text[at : at + 1000]))
    head, _ = await house.sessions.load(session.name)
    segments = await house.sessions.segments(session.name, 0, head.num_segments)
    kept = [segment.end for segment in segments if segment.state is not None]
    assert kept == [5000, 10000]
    assert head.checkpoint == 10000
    lengths = []

    async def counted(engine, job, **options):
        lengths.append(len(job.prompt))
        return await prefill.read(engine, job, **options)

    monkeypatch.setattr(history_module, "read", counted)
    short = await house.session("tiny")
    await house.turns.append(AppendRequest(short.name, text[:10_500]))
    expected = await house.sessions.get(short.name)
    assert (await house.history.rewind(session.name, position=10_500, etag="")).state_digest == expected.state_digest
    assert lengths == [500]
    head, _ = await house.sessions.load(session.name)
    assert head.checkpoint == 10_000
    await house.history.rewind(session.name, position=9000, etag="")
    head, _ = await house.sessions.load(session.name)
    assert (lengths, head.checkpoint) == ([500, 4000], 5000)


# Replay


async def test_a_session_replays_bit_for_bit(house):
    """Turns of all kinds, cut ones, forks of forks: run again from the beginning, text and state are the same."""
    session = await house.session("tiny", seed=5)
    text = await talk(house, session.name, PENALISED)
    await house.generate(
        Target(session=session.name), "", stopping=StoppingRequest(500, (text[30:33], "e")), sampling=PLAIN
    )
    await house.generate(Target(session=session.name), "x", 500, stop_after=2)
    await house.at_rest(session.name)
    end = (await house.sessions.get(session.name)).position
    for position in (end, end - 1, 45, 30, 12, 10, 0):
        (fork,) = await house.history.fork(session.name, position=position, count=1)
        if position:
            await house.generate(Target(session=fork.name), "", 5)
        replayed = [turn async for turn in house.history.replay(fork.name)]
        assert all(turn.difference_at is None and turn.is_state_equal for turn in replayed)
        assert all(turn.is_fingerprint_equal for turn in replayed)
        assert [turn.turn for turn in replayed] == list((await house.sessions.transcript(fork.name, 0, None)).turns)


async def test_a_byte_level_session_replays(house):
    """Bytes that are not UTF-8, and prompts that are cut within a character, are replayed as they were."""
    session = await house.session("bytes")
    await house.generate(Target(session=session.name), "Grüße 😀", 60, PLAIN)
    (fork,) = await house.history.fork(session.name, position=9, count=1)
    await house.generate(Target(session=fork.name), "é", 20, PLAIN)
    for name in (session.name, fork.name):
        replayed = [turn async for turn in house.history.replay(name)]
        assert replayed
        assert all(turn.difference_at is None and turn.is_state_equal for turn in replayed)


async def test_a_replay_says_where_it_differs(house):
    """A changed character, seed or state is found, at its turn and position; a changed fingerprint is reported."""
    session = await house.session("tiny")
    await talk(house, session.name)
    entry = house.store._entries[session.name]
    kept = list(entry.segments)
    first, second, *_ = await house.sessions.segments(session.name, 0, 4)
    ids = first.ids
    changed = Segment.of(
        0,
        ids[: len(PROMPT)],
        [*ids[len(PROMPT) : 20], (ids[20] + 1) % 65, *ids[21:]],
        parameters=first.parameters,
        outcome=first.outcome,
    )
    entry.segments[0] = changed
    (found,) = [turn async for turn in house.history.replay(session.name)]
    assert found.difference_at == 20
    entry.segments[:] = kept
    other = Segment.of(
        second.start, [(key + 1) % 65 for key in second.ids], [], parameters=second.parameters, outcome=second.outcome
    )
    entry.segments[1] = other
    found = [turn async for turn in house.history.replay(session.name)][-1]
    assert (found.turn.start, found.difference_at, found.is_state_equal) == (second.start, None, False)
    entry.segments[:] = kept
    model = house.models.get("tiny")
    object.__setattr__(model, "fingerprint", "another machine")
    try:
        replayed = [turn async for turn in house.history.replay(session.name)]
    finally:
        object.__setattr__(model, "fingerprint", first.parameters.fingerprint)
    assert [turn.is_fingerprint_equal for turn in replayed] == [False] * 4
    assert all(turn.difference_at is None for turn in replayed)


# Snapshots


async def test_a_snapshot_goes_on_elsewhere(house, tmp_path):
    """Exported and imported by a server of the same model and key, a session continues as it would have."""
    session = await house.session("tiny", seed=5)
    text = await talk(house, session.name)
    snapshot = await house.history.export(session.name)
    info = await house.sessions.get(session.name)
    assert len(snapshot) < info.position + 8 * 32 * 2 * 2 + 1500
    async with House([tiny_model(tmp_path / "tiny.onnx", "lstm", 2, 32, seed=3)]) as other:
        restored = await other.history.restore(snapshot, "arrived")
        assert (restored.name, restored.state_digest, restored.turn_count) == ("arrived", info.state_digest, 4)
        assert await transcript(other, "arrived") == text
        there = await other.generate(Target(session="arrived"), "!", 40)
        here = await house.generate(Target(session=session.name), "!", 40)
        assert (there.text, there.end.state_digest) == (here.text, here.end.state_digest)
        assert [turn.is_state_equal async for turn in other.history.replay("arrived")] == [True] * 5


async def test_a_snapshot_of_another_model_is_refused(house, tmp_path):
    """The weights have to be the same, not the name."""
    session = await house.session("tiny")
    snapshot = await house.history.export(session.name)
    async with House([tiny_model(tmp_path / "tiny.onnx", "lstm", 2, 32, seed=4)]) as other:
        with pytest.raises(ModelMismatchError, match="does not serve"):
            await other.history.restore(snapshot, "")


async def test_a_snapshot_of_other_arithmetic_says_so(house, tmp_path):
    """It is imported, and its fingerprint is that of its last turn, not the model's, until a turn is run here."""
    session = await house.session("tiny", seed=5)
    assert session.fingerprint == ""
    text = await talk(house, session.name)
    its_own = house.models.get("tiny").fingerprint
    assert (await house.sessions.get(session.name)).fingerprint == its_own
    # As an earlier server has it: only the turns say it.
    await house.sessions.change(session.name, lambda head: Change(msgspec.structs.replace(head, fingerprint="")))
    snapshot = await house.history.export(session.name)
    async with House([tiny_model(tmp_path / "tiny.onnx", "lstm", 2, 32, seed=3)]) as other:
        object.__setattr__(other.models.get("tiny"), "fingerprint", "another machine")
        with structlog.testing.capture_logs() as lines:
            restored = await other.history.restore(snapshot, "arrived")
        assert restored.fingerprint == its_own
        assert lines == [
            {"event": "session_of_other_arithmetic", "log_level": "warning", "model": "tiny", "fingerprint": its_own}
        ]
        await other.generate(Target(session="arrived"), "!", 40)
        assert (await other.sessions.get("arrived")).fingerprint == "another machine"
        (fork,) = await other.history.fork("arrived", position=len(text), count=1)
        assert fork.fingerprint == its_own
        assert (await other.history.rewind("arrived", position=0, etag="")).fingerprint == ""


async def test_many_forks_and_rewinds_at_once_do_not_mix(house):
    """Forked and rewound side by side, every session has its own text."""
    session = await house.session("tiny", seed=5)
    text = await talk(house, session.name)
    chance = random.Random(2)

    async def one(position: int) -> None:
        (fork,) = await house.history.fork(session.name, position=position, count=1)
        back = chance.randint(0, position)
        await house.history.rewind(fork.name, position=back, etag="")
        await go_on(house, fork.name, text, back)

    await asyncio.gather(*(one(chance.randint(1, len(text))) for _ in range(20)))
    assert await transcript(house, session.name) == text
