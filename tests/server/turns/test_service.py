"""Turns over a real engine: how they end, what they keep, what they refuse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from elman_server.domain.errors import (
    DrainingError,
    EtagMismatchError,
    InvalidFieldError,
    ModelNotFoundError,
    QuotaError,
    SessionBusyError,
    SessionFullError,
    SessionNotFoundError,
    TurnCancelledError,
    UnknownCharacterError,
)
from elman_server.domain.events import FinishReason
from elman_server.domain.requests import (
    AppendRequest,
    Detail,
    GenerateRequest,
    ResumeRequest,
    SamplingRequest,
    ScoreRequest,
    StoppingRequest,
    Target,
)
from elman_server.domain.vocabulary import Unknown
from elman_server.sessions import repository
from elman_server.sessions.session import Expiration, Filter, LabelChange, SessionStatus
from elman_server.sessions.stores import MemoryStore
from elman_server.turns.running_turn import RunningTurn
from elman_server.turns.service import Turns
from tests.clock import Clock
from tests.models import tiny_model
from tests.server.house import PLAIN, House, Text, collected
from tests.server.reader import Reader

PROMPT = "What is the city but the people?\n"
ENDLESS = StoppingRequest(max_chars=100_000)
FOR_EVER = 10.0**9

pytestmark = pytest.mark.asyncio(loop_scope="module")


CLOCK = Clock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """One model of characters and one of bytes; time stands still unless a test moves it."""
    folder = tmp_path_factory.mktemp("models")
    paths = [
        tiny_model(folder / "tiny.onnx", "gru", 1, 32, seed=3),
        tiny_model(folder / "bytes.onnx", "gru", 1, 32, seed=3, vocabulary=None, name="bytes"),
    ]
    async with House(paths, store=MemoryStore(10_000, 2**30, CLOCK)) as house:
        house.sessions._clock = CLOCK
        yield house


async def begun(house: House, name: str, *, turns: Turns | None = None, **kwargs: object) -> Reader:
    """Begin an endless turn on a session, and read its first chunk."""
    request = GenerateRequest(Target(session=name), PROMPT, PLAIN, ENDLESS, **kwargs)  # type: ignore[arg-type]
    return await Reader.of(turns or house.turns, request)


async def transcript(house: House, name: str) -> str:
    """Return all that a session has read and written."""
    return (await house.sessions.transcript(name, 0, None)).text


# One at a time


async def test_a_second_turn_is_told_to_come_again(house):
    """6: while a turn runs, Generate and Append are SESSION_BUSY at once; reading the session is not."""
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    for second in (
        house.generate(Target(session=session.name), PROMPT, 1),
        house.turns.append(AppendRequest(session.name, "x")),
    ):
        with pytest.raises(SessionBusyError) as refused:
            await second
        assert refused.value.retry_after > 0
    # 3: a reader of the session sees it before the turn.
    info = await house.sessions.get(session.name)
    assert (info.status, info.position, info.turn_count) == (SessionStatus.GENERATING, 0, 0)
    scored = await house.turns.score(ScoreRequest(Target(session=session.name), "ab"))
    assert next(iter(scored)).log_probability is None
    reader.gate.set()
    await house.turns.cancel(session.name)
    await reader.task
    assert (await house.generate(Target(session=session.name), "x", 1)).end.reason is FinishReason.MAX_CHARS


@pytest.mark.parametrize("has_patience", [True, False])
async def test_the_turn_after_one_that_was_left_waits_for_its_commit(house, monkeypatch, has_patience):
    """A stream is closed without Cancel: the next turn is not busy, unless the commit takes too long."""
    is_committed, give_up = asyncio.Event(), RunningTurn.give_up

    async def give_up_slowly(turn: RunningTurn, *, keep: bool) -> None:
        await is_committed.wait()
        await give_up(turn, keep=keep)

    monkeypatch.setattr(RunningTurn, "give_up", give_up_slowly)
    monkeypatch.setattr(repository, "LEFT_SECONDS", FOR_EVER if has_patience else 0.01)
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    reader.task.cancel()
    await asyncio.wait([reader.task])

    next_turn = asyncio.create_task(house.generate(Target(session=session.name), "x", 1))
    if has_patience:
        for _ in range(20):
            await asyncio.sleep(0)
        assert not next_turn.done()
        is_committed.set()
        assert (await next_turn).end.reason is FinishReason.MAX_CHARS
        assert await transcript(house, session.name) == PROMPT + reader.text.text + "x" + next_turn.result().text
    else:
        with pytest.raises(SessionBusyError):
            await next_turn
        is_committed.set()
        await house.turns.cancel(session.name)


async def test_cancel_may_be_repeated(house):
    """Many cancels at once and one after have the same answer: the idle session."""
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    reader.gate.set()
    answers = await asyncio.gather(*(house.turns.cancel(session.name) for _ in range(5)))
    answers.append(await house.turns.cancel(session.name))
    text = await reader.task
    assert text.end.reason is FinishReason.CANCELLED
    assert {answer.etag for answer in answers} == {text.end.etag}
    assert answers[0].status is SessionStatus.ACTIVE
    assert answers[0].position == text.end.position == len(PROMPT) + len(text.text)
    assert await transcript(house, session.name) == PROMPT + text.text


async def test_cancel_ends_a_turn_whose_reader_takes_nothing(house):
    """A reader that stands still does not hold up the one who cancels; what it was delivered is kept."""
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    info = await house.turns.cancel(session.name)
    with pytest.raises(asyncio.CancelledError):
        await reader.task
    assert await transcript(house, session.name) == PROMPT + reader.text.text
    assert info.position == len(PROMPT) + len(reader.text.text)


async def test_cancel_between_started_and_the_first_character(house):
    """A cancel that comes before there is a job to end ends it all the same, with nothing kept."""
    session = await house.session("tiny")
    request = GenerateRequest(Target(session=session.name), PROMPT, PLAIN, ENDLESS)
    turn = asyncio.create_task(collected(house.turns.generate(request)))
    await asyncio.sleep(0)
    assert (await house.turns.cancel(session.name)).etag == session.etag
    assert (await turn).end.reason is FinishReason.CANCELLED


async def test_delete_between_started_and_the_first_character(house):
    """A turn whose session is deleted before it samples does not sample."""
    session = await house.session("tiny")
    request = GenerateRequest(Target(session=session.name), PROMPT, PLAIN, ENDLESS)
    async with contextlib.aclosing(house.turns.generate(request)) as events:
        await anext(events)
        await house.sessions.delete(session.name, etag="")
        with pytest.raises(SessionNotFoundError):
            await anext(events)


@pytest.mark.parametrize("is_left", [False, True], ids=["running", "left"])
async def test_a_turn_that_its_server_alone_knows_of_can_be_resumed(house, is_left):
    """In `memory:` nothing of a short turn is written before its end; a Resume finds it all the same."""
    session, undisturbed = await house.session("tiny", seed=5), await house.session("tiny", seed=5)
    expected = await house.generate(Target(session=undisturbed.name), PROMPT, 3000)
    stopping = StoppingRequest(max_chars=3000)
    request = GenerateRequest(Target(session=session.name), PROMPT, PLAIN, stopping, request_id=bytes(range(16)))
    reader = await Reader.of(house.turns, request)
    assert (await house.sessions.load(session.name)).head.open is None
    position = reader.text.chunks[-1].position
    if is_left:
        reader.task.cancel()
    second = await collected(house.turns.resume(ResumeRequest(session.name, bytes(range(16)), position)))
    reader.gate.set()
    with pytest.raises(asyncio.CancelledError):  # the transport reports what the cancellation carries: LEASE_LOST
        await reader.task
    assert reader.text.text + second.text == expected.text
    assert second.end.state_digest == expected.end.state_digest
    assert await transcript(house, session.name) == PROMPT + expected.text


@pytest.mark.parametrize(("is_drained", "error"), [(False, TurnCancelledError), (True, DrainingError)])
async def test_an_append_that_is_ended_says_by_whom(house, is_drained, error):
    """Cancel and a stop end it while it reads; nothing of it is kept, and a stop asks to come again."""
    session = await house.session("tiny")
    turns = Turns(house.sessions, house.models, house.engines)
    append = asyncio.create_task(turns.append(AppendRequest(session.name, PROMPT * 3000)))
    while not house.sessions.leases.is_generating(session.name):  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0)
    await (turns.drain(0) if is_drained else turns.cancel(session.name))
    with pytest.raises(error):
        await append
    after = await house.sessions.get(session.name)
    assert (after.etag, after.position, after.status) == (session.etag, 0, SessionStatus.ACTIVE)


async def test_cancel_of_an_unknown_session_is_refused(house):
    """An unknown session has no turn to cancel."""
    with pytest.raises(SessionNotFoundError):
        await house.turns.cancel("unknown")


# Ends


async def test_a_deadline_ends_a_turn_before_the_call(house):
    """DEADLINE, with what was delivered committed."""
    session = await house.session("tiny")
    text = await house.generate(Target(session=session.name), PROMPT, stopping=ENDLESS, time_left=0.4)
    assert text.end.reason is FinishReason.DEADLINE
    assert await transcript(house, session.name) == (PROMPT + text.text if text.text else "")
    info = await house.sessions.get(session.name)
    assert (info.position, info.etag) == (text.end.position, text.end.etag)


@pytest.mark.parametrize("time_left", [0.0, 1e-9])
async def test_a_deadline_that_is_over_keeps_nothing(house, time_left):
    """Without time for one character the turn is as if it had never been asked."""
    session = await house.session("tiny")
    text = await house.generate(Target(session=session.name), PROMPT, stopping=ENDLESS, time_left=time_left)
    assert (text.end.reason, text.text) == (FinishReason.DEADLINE, "")
    assert (await house.sessions.get(session.name)).etag == session.etag


async def test_delete_ends_the_running_turn(house):
    """The turn ends with SESSION_NOT_FOUND, and nothing of it is kept."""
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    await house.sessions.delete(session.name, etag="")
    with pytest.raises(SessionNotFoundError):
        await reader.rest()
    with pytest.raises(SessionNotFoundError):
        await house.at_rest(session.name)


async def test_a_turn_outlives_the_time_of_its_session(house):
    """Expired while generating: the turn is kept, and the session's idle time begins again at its end."""
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    CLOCK.now += 3601
    for _ in range(20):  # whatever makes the store forget
        await house.session("tiny")
    assert (await house.sessions.get(session.name)).status is SessionStatus.GENERATING
    reader.gate.set()
    info = await house.turns.cancel(session.name)
    text = await reader.task
    assert (info.status, info.expire_time) == (SessionStatus.ACTIVE, CLOCK.now + 3600)
    assert await transcript(house, session.name) == PROMPT + text.text


async def test_drain_ends_what_runs_and_refuses_what_comes(house):
    """At the end of the grace period turns end with SERVER_DRAINING, committed; new ones are refused."""
    turns = Turns(house.sessions, house.models, house.engines)
    session, late = await house.session("tiny"), await house.session("tiny")
    reader = await begun(house, session.name, turns=turns)
    reader.gate.set()
    await turns.drain(0)
    text = await reader.task
    assert text.end.reason is FinishReason.SERVER_DRAINING
    assert await transcript(house, session.name) == PROMPT + text.text
    assert (await house.sessions.get(session.name)).etag == text.end.etag
    with pytest.raises(DrainingError):
        await turns.append(AppendRequest(late.name, "x"))
    with pytest.raises(DrainingError):
        await anext(turns.generate(GenerateRequest(Target(session=late.name), PROMPT)))


async def test_drain_lets_turns_finish_within_the_grace(house):
    """A turn that ends in time ends as it would have."""
    turns = Turns(house.sessions, house.models, house.engines)
    session = await house.session("tiny")
    stopping = StoppingRequest(max_chars=2000)
    reader = await Reader.of(turns, GenerateRequest(Target(session=session.name), PROMPT, PLAIN, stopping))
    reader.gate.set()
    await turns.drain(FOR_EVER)
    assert (await reader.task).end.reason is FinishReason.MAX_CHARS


async def test_drain_of_an_idle_server_is_done_at_once(house):
    """There is nothing to wait for."""
    await Turns(house.sessions, house.models, house.engines).drain(FOR_EVER)


# Beside a turn


async def test_labels_set_during_a_turn_survive_it(house):
    """The turn's commit changes what is the turn's and nothing else."""
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    await house.sessions.update(session.name, etag="", labels=LabelChange({"mood": "calm"}), expiration=None)
    reader.gate.set()
    info = await house.turns.cancel(session.name)
    assert (info.labels, info.turn_count) == ({"mood": "calm"}, 1)
    assert info.position == (await reader.task).end.position


async def test_a_session_made_again_during_a_turn_has_nothing_of_it(house):
    """Delete and create under the same name while a turn runs: the new session is at its beginning."""
    session = await house.session("tiny")
    reader = await begun(house, session.name)
    await house.sessions.delete(session.name, etag="")
    CLOCK.now += 1
    again = await house.sessions.create(
        model="tiny",
        version=None,
        session_id=session.name,
        seed=1,
        expiration=Expiration(),
        labels={},
    )
    with pytest.raises(SessionNotFoundError):
        await reader.rest()
    info = await house.at_rest(session.name)
    assert (info.position, info.turn_count, info.etag) == (0, 0, again.etag)


async def test_an_etag_is_checked_before_anything_happens(house):
    """A stale etag refuses the turn, the current one lets it begin, and Finished has the next."""
    session = await house.session("tiny")
    target = Target(session=session.name)
    first = await house.generate(target, PROMPT, 5, etag=session.etag)
    with pytest.raises(EtagMismatchError) as refused:
        await house.generate(target, "", 5, etag=session.etag)
    assert refused.value.current == first.end.etag
    with pytest.raises(EtagMismatchError):
        await house.turns.append(AppendRequest(session.name, "x", etag=session.etag))
    second = await house.generate(target, "", 5, etag=first.end.etag)
    assert (await house.sessions.get(session.name)).etag == second.end.etag
    assert len(await transcript(house, session.name)) == len(PROMPT) + 10


# What is read


@pytest.mark.parametrize(("prompt", "unknown"), [("", Unknown()), ("😀", Unknown(skip=True))])
async def test_a_new_session_needs_a_character(house, prompt, unknown):
    """Nothing read and nothing to read: refused, and the session stays free."""
    session = await house.session("tiny")
    for target in (Target(session=session.name), Target(model="tiny")):
        with pytest.raises(InvalidFieldError, match="prompt: is empty and nothing was read before"):
            await house.generate(target, prompt, 5, unknown=unknown)
    with pytest.raises(InvalidFieldError, match="text: "):
        await house.turns.append(AppendRequest(session.name, prompt, unknown=unknown))
    assert (await house.sessions.get(session.name)).status is SessionStatus.ACTIVE
    assert (await house.generate(Target(session=session.name), "x", 5)).end.position == 6


@pytest.mark.parametrize(("unknown", "read"), [(Unknown(skip=True), "To be!"), (Unknown(replace_with="-"), "To- be-!")])
async def test_unknown_characters_are_skipped_or_replaced(house, unknown, read):
    """Position and transcript count what was read, not what was sent."""
    for call in ("generate", "append"):
        session = await house.session("tiny")
        if call == "generate":
            text = await house.generate(Target(session=session.name), "Toé be😀!", 3, unknown=unknown)
            assert text.started is not None
            assert text.started.prompt_chars == text.end.prompt_chars == len(read)
            expected = read + text.text
        else:
            await house.turns.append(AppendRequest(session.name, "Toé be😀!", unknown=unknown))
            expected = read
        assert await transcript(house, session.name) == expected


async def test_unknown_characters_are_refused_by_default(house):
    """With the field, the characters and their places; the session is as before."""
    session = await house.session("tiny")
    with pytest.raises(UnknownCharacterError) as refused:
        await house.generate(Target(session=session.name), "To\0be😀", 5)
    assert (refused.value.field, refused.value.characters) == ("prompt", (("\0", 2), ("😀", 5)))
    assert await house.sessions.get(session.name) == session


async def test_a_prompt_has_a_longest(house):
    """10 MB are refused at once."""
    session = await house.session("tiny")
    with pytest.raises(InvalidFieldError, match="prompt: has 10000000 characters; at most 100000 are allowed"):
        await house.generate(Target(session=session.name), "x" * 10**7, 5)


async def test_an_unknown_target_is_refused(house):
    """An unknown session or model is refused."""
    with pytest.raises(SessionNotFoundError):
        await house.generate(Target(session="unknown"), PROMPT, 5)
    with pytest.raises(ModelNotFoundError):
        await house.generate(Target(model="unknown"), PROMPT, 5)
    assert not house.sessions.leases.is_running("unknown")


async def test_a_turn_without_a_session_leaves_none(house):
    """From a model's beginning: a text, no etag, nothing kept."""
    before = await house.sessions.list(page_size=1000, page_token="", filter=Filter())
    text = await house.generate(Target(model="tiny"), PROMPT, 20)
    assert (len(text.text), text.end.position, text.end.etag) == (20, len(PROMPT) + 20, "")
    assert await house.sessions.list(page_size=1000, page_token="", filter=Filter()) == before


async def test_turns_are_told_apart_in_the_transcript(house):
    """Each with the positions that it read and sampled, and its seed."""
    session = await house.session("tiny", seed=9)
    await house.turns.append(AppendRequest(session.name, "abc"))
    await house.generate(Target(session=session.name), "de", 4, SamplingRequest(seed=5))
    await house.generate(Target(session=session.name), "", 2, SamplingRequest())
    turns = (await house.sessions.transcript(session.name, 0, None)).turns
    assert [(turn.start, turn.prompt_end, turn.end, turn.seed) for turn in turns] == [
        (0, 3, 3, 0),
        (3, 5, 9, 5),
        (9, 9, 11, 9),
    ]


async def test_a_session_takes_the_same_memory_after_any_text(house):
    """R11: the same matrices serve every step; the state is as large after 5,000 characters as after one."""
    session = await house.session("tiny")
    await house.turns.append(AppendRequest(session.name, "a"))
    first, _ = await house.sessions.load(session.name)
    await house.turns.append(AppendRequest(session.name, "bcde " * 1000))
    last, _ = await house.sessions.load(session.name)
    assert last.state.num_bytes == first.state.num_bytes == 4 * 32
    assert last.state != first.state


# When to stop


@pytest.mark.parametrize("max_chars", [0, -1, 100_001, 2**63])
async def test_max_chars_has_bounds(house, max_chars):
    """Out of them the turn is refused before it begins."""
    session = await house.session("tiny")
    with pytest.raises(InvalidFieldError, match=r"stopping\.max_chars"):
        await house.generate(Target(session=session.name), PROMPT, max_chars)
    assert await house.sessions.get(session.name) == session


async def test_one_character_is_one_character(house):
    """max_chars 1 samples one character."""
    text = await house.generate(Target(model="tiny"), PROMPT, 1)
    assert (len(text.text), text.end.generated_chars, text.end.reason) == (1, 1, FinishReason.MAX_CHARS)


async def plain(house: House) -> str:
    """The text that the seed of PLAIN gives after PROMPT."""
    return (await house.generate(Target(model="tiny"), PROMPT, 300)).text


@pytest.mark.parametrize("include_stop", [True, False])
@pytest.mark.parametrize("chunk_chars", [0, 1])
async def test_a_stop_string_is_shown_whole_or_not_at_all(house, include_stop, chunk_chars):
    """The text ends where the stop string first ended; shown, it is part of the session, else not."""
    expected = await plain(house)
    stop = expected[100:104]
    end = expected.index(stop) + (len(stop) if include_stop else 0)
    session = await house.session("tiny")
    text = await house.generate(
        Target(session=session.name),
        PROMPT,
        stopping=StoppingRequest(300, ("never that", stop), include_stop),
        chunk_chars=chunk_chars,
    )
    assert (text.end.reason, text.end.stop_string) == (FinishReason.STOP_STRING, stop)
    assert text.text == expected[:end]
    assert text.end.position == len(PROMPT) + end
    assert await transcript(house, session.name) == PROMPT + expected[:end]


async def test_overlapping_stop_strings_end_at_the_first_end(house):
    """Of stop strings that overlap the one that is complete first counts; of those complete at once the longest."""
    expected = await plain(house)
    long, early, inner = expected[100:112], expected[98:103], expected[101:103]
    text = await house.generate(Target(model="tiny"), PROMPT, stopping=StoppingRequest(300, (long, inner, early)))
    first = min((expected.index(stop) + len(stop), -len(stop), stop) for stop in (long, inner, early))
    assert text.end.stop_string == first[2]
    assert text.text == expected[: first[0] + first[1]]


async def test_a_stop_string_that_overlaps_itself_stops(house):
    """With one letter allowed, a stop string of it three times is found at the third."""
    sampling = SamplingRequest(allowed_characters="a")
    for include_stop, length in ((True, 3), (False, 0)):
        stopping = StoppingRequest(50, ("aaa",), include_stop)
        session = await house.session("tiny")
        text = await house.generate(Target(session=session.name), PROMPT, 1, sampling, stopping=stopping)
        assert (text.text, text.end.reason) == ("a" * length, FinishReason.STOP_STRING)
        assert await transcript(house, session.name) == PROMPT + "a" * length
        assert (await house.sessions.get(session.name)).turn_count == 1


async def test_the_beginning_of_a_stop_string_is_shown_in_the_end(house):
    """Held back while it might become one, it is delivered when the turn ends without it."""
    stopping = StoppingRequest(5, ("aaaaaaaa",))
    text = await house.generate(
        Target(model="tiny"), PROMPT, 1, SamplingRequest(allowed_characters="a"), stopping=stopping
    )
    assert (text.text, text.end.reason) == ("aaaaa", FinishReason.MAX_CHARS)
    assert len(text.chunks) == 1


# Details


async def test_details_say_how_likely_each_character_was(house):
    """One for each character of a chunk, the likeliest first, greedy taking the first of them."""
    text = await house.generate(
        Target(model="tiny"), PROMPT, 50, SamplingRequest(temperature=0), detail=Detail(log_probability=True, top_n=20)
    )
    assert "".join(detail.text for detail in text.details) == text.text
    for chunk in text.chunks:
        assert len(chunk.details) == len(chunk.text)
    for detail in text.details:
        nats = [value for _, value in detail.top]
        assert len(nats) == 20
        assert nats == sorted(nats, reverse=True)
        assert detail.top[0] == (detail.text, detail.log_probability)


async def test_details_are_those_of_the_model_not_of_the_sampler(house):
    """A banned character has its probability all the same."""
    sampling = SamplingRequest(allowed_characters="x", temperature=0.1)
    text = await house.generate(Target(model="tiny"), PROMPT, 5, sampling, detail=Detail(log_probability=True))
    scored = await house.turns.score(ScoreRequest(Target(model="tiny"), PROMPT + text.text))
    assert text.text == "xxxxx"
    assert list(scored)[len(PROMPT) :] == text.details
    assert all(detail.log_probability is not None and detail.log_probability < -0.1 for detail in text.details)


@pytest.mark.parametrize("top_n", [-1, 21])
async def test_a_stream_tells_at_most_twenty(house, top_n):
    """More would weigh more than the text."""
    with pytest.raises(InvalidFieldError, match=r"detail\.top_n"):
        await house.generate(Target(model="tiny"), PROMPT, 5, detail=Detail(top_n=top_n))


async def test_a_score_tells_up_to_the_vocabulary(house):
    """R9: the whole distribution at every character, which adds up to 1; no more than that, nor too much at once."""
    scored = list(await house.turns.score(ScoreRequest(Target(model="tiny"), "hello", top_n=65)))
    assert [detail.text for detail in scored] == list("hello")
    assert scored[0].log_probability is None
    for detail in scored[1:]:
        assert sum(2.718281828459045**nats for _, nats in detail.top) == pytest.approx(1)
        assert dict(detail.top)[detail.text] == detail.log_probability
    for text, top_n, field in (("hello", 66, "top_n"), ("x" * 90_000, 5, "text"), ("", 0, "text")):
        with pytest.raises(InvalidFieldError) as refused:
            await house.turns.score(ScoreRequest(Target(model="tiny"), text, top_n=top_n))
        assert refused.value.field == field


async def test_appended_details_are_scored_ones(house):
    """Read with details, a text returns what Score would have returned, also across turns."""
    session = await house.session("tiny")
    _, first = await house.turns.append(AppendRequest(session.name, "hel", detail=Detail(True, 2)))
    _, second = await house.turns.append(AppendRequest(session.name, "lo", detail=Detail(True, 2)))
    assert (*first, *second) == tuple(await house.turns.score(ScoreRequest(Target(model="tiny"), "hello", top_n=2)))


# Byte-level models


async def generate_bytes(house: House, name: str, sampling: SamplingRequest, **kwargs: object) -> Text:
    """Run a turn of the byte-level model."""
    return await house.generate(Target(session=name), "Grüße 😀", 1, sampling, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk_chars", [0, 1, 3])
async def test_a_byte_level_model_streams_valid_text(house, chunk_chars):
    """Characters of several bytes are shown whole; what is not UTF-8 is U+FFFD; joined, it is the transcript."""
    session = await house.session("bytes")
    sampling = SamplingRequest(seed=2, allowed_characters="Ã¤a")  # the bytes of "ä", and "a"
    stopping = StoppingRequest(max_chars=400)
    text = await generate_bytes(house, session.name, sampling, stopping=stopping, chunk_chars=chunk_chars)
    assert set(text.text) == {"ä", "a", "\ufffd"}
    assert await transcript(house, session.name) == "Grüße 😀" + text.text
    assert (text.end.prompt_chars, text.end.generated_chars) == (12, 400)


@pytest.mark.parametrize("cuts", [(1,) * 40, (7, 1, 32), (39, 1), (40,)])
async def test_a_character_is_finished_by_the_turn_that_goes_on(house, cuts):
    """3: turns that stop within a character hold it back; the texts of several, joined, are the text of one."""
    sampling = SamplingRequest(
        seed=2, allowed_characters="Ãâ\x82¬a"
    )  # bytes of "Â", "€" and, wrongly mixed, of nothing
    whole, session = await house.session("bytes"), await house.session("bytes")
    expected = await generate_bytes(house, whole.name, sampling, stopping=StoppingRequest(max_chars=41))
    texts = [await generate_bytes(house, session.name, sampling, stopping=StoppingRequest(max_chars=1))]
    for cut in cuts:
        stopping = StoppingRequest(max_chars=cut)
        texts.append(await house.generate(Target(session=session.name), "", 1, sampling, stopping=stopping))
    assert "".join(text.text for text in texts) == expected.text
    assert texts[-1].end.state_digest == expected.end.state_digest
    assert "\ufffd" in expected.text


async def test_a_transcript_in_pieces_is_the_transcript(house):
    """Wherever the ranges cut, a character belongs to the one that its last byte is in."""
    session = await house.session("bytes")
    for text in ("Grüße", " 😀 ", "€"):
        await house.turns.append(AppendRequest(session.name, text))
    end = len("Grüße 😀 €".encode())
    parts = [(await house.sessions.transcript(session.name, at, at + 1)).text for at in range(end)]
    assert parts == ["G", "r", "", "ü", "", "ß", "e", " ", "", "", "", "😀", " ", "", "", "€"]


@pytest.mark.parametrize("seed", range(5))
async def test_a_byte_level_text_that_stops_within_a_character_is_the_transcript(house, seed):
    """3: bytes of an unfinished character are in neither when the turn ends, however it ends."""
    session = await house.session("bytes")
    sampling = SamplingRequest(seed=seed, allowed_characters="Ãa")
    text = await generate_bytes(house, session.name, sampling, stopping=StoppingRequest(400, ("a",)))
    assert text.end.reason is FinishReason.STOP_STRING
    assert await transcript(house, session.name) == "Grüße 😀" + text.text
    assert text.text == "\ufffd" * (text.end.generated_chars - 1)  # all but the last, which may yet become a character


async def test_a_byte_level_model_tells_of_every_byte(house):
    """Details are one a byte, those of a character that is shown later too."""
    session = await house.session("bytes")
    sampling = SamplingRequest(seed=2, allowed_characters="Ã¤a")
    detail = Detail(log_probability=True)
    text = await generate_bytes(
        house, session.name, sampling, stopping=StoppingRequest(50), detail=detail, chunk_chars=1
    )
    assert house.models.get("bytes").vocabulary.decoder().decode([ord(d.text) for d in text.details]) == text.text
    assert len(text.details) == 50


async def test_turns_are_counted(house):
    """One turn more than allowed is refused at once, and an idle session takes no place; one that ended makes room."""
    turns = Turns(house.sessions, house.models, house.engines, max_streams=1)
    held = turns.generate(GenerateRequest(Target(model="tiny"), PROMPT))
    await anext(held)
    with pytest.raises(QuotaError, match="the server has reached its limit of 1 streams"):
        await anext(turns.generate(GenerateRequest(Target(model="tiny"), PROMPT)))
    await held.aclose()
    with pytest.raises(InvalidFieldError):
        await anext(turns.generate(GenerateRequest(Target(model="tiny"))))
    again = turns.generate(GenerateRequest(Target(model="tiny"), PROMPT))
    assert await anext(again)
    await again.aclose()


async def test_a_session_may_be_full(house):
    """A turn past the characters or turns that one session may have is refused; the session stays as it is."""
    turns = Turns(house.sessions, house.models, house.engines, max_session_chars=50)
    session = await house.session("tiny")
    for _ in range(6):
        await turns.append(AppendRequest(session.name, "a"))
    for call in (
        turns.append(AppendRequest(session.name, "a")),
        collected(turns.generate(GenerateRequest(Target(session=session.name), "a"))),
    ):
        with pytest.raises(SessionFullError, match="has 6 characters in 6 turns; one has at most 50 in 5"):
            await call
    other = await house.session("tiny")
    with pytest.raises(SessionFullError):
        await turns.append(AppendRequest(other.name, "a" * 51))
    assert (await house.sessions.get(other.name)).position == 0
