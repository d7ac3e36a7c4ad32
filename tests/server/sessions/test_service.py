"""Idle sessions: created, shown, listed, changed, deleted; one writer each."""

import asyncio
import re
import uuid
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from elman_server.domain.errors import (
    CorruptRecordError,
    EtagMismatchError,
    InvalidFieldError,
    ModelMismatchError,
    ModelNotFoundError,
    PositionOutOfRangeError,
    QuotaError,
    RevisionMismatchError,
    SessionBusyError,
    SessionExistsError,
    SessionExpiredError,
    SessionNotFoundError,
)
from elman_server.domain.events import FinishReason
from elman_server.domain.requests import ANONYMOUS, Creation, SamplingRequest
from elman_server.domain.state import SessionState
from elman_server.domain.vocabulary import Vocabulary
from elman_server.models.registry import ModelInfo, Models
from elman_server.sessions.lifetimes import Lifetimes
from elman_server.sessions.records import Head, Outcome, Parameters, Segment
from elman_server.sessions.service import SEED_BITS, Sessions
from elman_server.sessions.session import (
    CommittedTurn,
    Expiration,
    Filter,
    LabelChange,
    SessionInfo,
    SessionStatus,
)
from elman_server.sessions.stores import MemoryStore
from elman_server.sessions.transitions import Change, Durability
from elman_server.turns.running_turn import RunningTurn
from tests.clock import START, Clock

IDLE, ABSOLUTE = 100.0, 1000.0
ASKED = Parameters("", sampling=SamplingRequest(seed=5))


def model(name: str = "letters", digest: str = "a" * 64) -> ModelInfo:
    """Return a model of eight letters."""
    return ModelInfo(
        name=name,
        version="1",
        cell="gru",
        num_layers=1,
        hidden_size=1,
        num_parameters=1,
        vocabulary=Vocabulary(tuple("abcdefgh")),
        digest=digest,
        fingerprint="",
        initial=SessionState((b"\0\0\0\0",)),
        evaluations=(),
    )


class Rest:
    """Sessions without engines, and a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.models = Models([model(), model("other")])
        self.store = MemoryStore(100, 2**20, self.clock)
        self.sessions = Sessions(self.store, self.models, Lifetimes(IDLE, ABSOLUTE), self.clock)

    async def create(
        self,
        session_id: str = "",
        *,
        name: str = "letters",
        seed: int | None = None,
        creation: Creation = ANONYMOUS,
        **kwargs: float | dict[str, str],
    ) -> SessionInfo:
        """Make a session."""
        labels = kwargs.pop("labels", {})
        assert isinstance(labels, dict)
        return await self.sessions.create(
            model=name,
            version=None,
            session_id=session_id,
            seed=seed,
            expiration=Expiration(**kwargs),  # type: ignore[arg-type]
            labels=labels,
            creation=creation,
        )

    async def commit(self, name: str, prompt: list[int], sampled: list[int]) -> SessionInfo:
        """Add a turn as turns do."""

        def change(head: Head) -> Change:
            segment = Segment.of(head.position, prompt, sampled, parameters=ASKED)
            values = {field: getattr(head, field) for field in head.__struct_fields__}
            values |= {"position": segment.end, "turn_count": head.turn_count + 1}
            values |= {"num_segments": head.num_segments + 1, "etag": head.etag + 1}
            return Change(self.sessions.renewed(Head(**values)), (segment,))

        return self.sessions.info(name, await self.sessions.change(name, change))

    async def begin(self, name: str, prompt: list[int]) -> RunningTurn:
        """Open a turn that reads a prompt, and has read it."""
        self.sessions.leases.take(name).is_generating = True
        loaded = await self.sessions.load(name)
        state = loaded.head.state
        turn = RunningTurn(None, self.sessions, name, loaded=loaded, state=state, durability=Durability())  # type: ignore[arg-type]
        turn.plan(prompt)
        await turn.begin(ASKED)
        turn.progress.remember(0, SessionState((b"\0\0\0\1",), prompt[-1]))
        return turn

    def release(self, name: str) -> None:
        """Release a session's lease."""
        lease = self.sessions.leases.running(name)
        assert lease is not None
        self.sessions.leases.release(lease)


@pytest.fixture
def rest() -> Rest:
    """Idle sessions."""
    return Rest()


async def refused_field(call) -> str:
    """Return the field that is refused."""
    with pytest.raises(InvalidFieldError) as refused:
        await call
    return refused.value.field


# Made and shown


async def test_a_new_session_is_at_its_beginning(rest):
    """R1: position 0, no turn, the model's initial state (h = 0), the default time to live."""
    info = await rest.create(seed=7, labels={"team": "red"})
    assert uuid.UUID(info.name).version == 4
    assert (info.model, info.model_digest) == ("models/letters/versions/1", "a" * 64)
    assert (info.status, info.position, info.turn_count, info.seed) == (SessionStatus.ACTIVE, 0, 0, 7)
    assert (info.create_time, info.update_time, info.expire_time) == (START, START, START + IDLE)
    assert info.state_digest == SessionState((b"\0\0\0\0",)).digest()
    assert info.labels == {"team": "red"}
    assert await rest.sessions.get(info.name) == info


async def test_seeds_that_the_server_draws_are_short_and_differ(rest):
    """Without a seed a session gets one that can be typed."""
    seeds = {(await rest.create()).seed for _ in range(20)}
    assert len(seeds) == 20
    assert max(seeds) < 2**32


@pytest.mark.parametrize(
    "name", ["abc", "../etc/passwd", "UPPER", "a" * 64, "a" * 10_000, "a b c d", "abcd\n", "sessions/abcd", "äöüß"]
)
async def test_a_chosen_name_is_short_and_plain(rest, name):
    """Names that do not fit are refused, and shown only in part."""
    with pytest.raises(InvalidFieldError, match=re.escape("[a-z0-9-]{4,63}")) as refused:
        await rest.create(name)
    assert refused.value.field == "session_id"
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("name", ["abcd", "0000", "----", "a" * 63])
async def test_a_chosen_name_is_taken_once(rest, name):
    """A session has the name that was asked for, and no other session gets it."""
    assert (await rest.create(name)).name == name
    with pytest.raises(SessionExistsError):
        await rest.create(name)


async def test_a_session_is_of_a_model_that_is_served(rest):
    """An unknown model or version is not there."""
    with pytest.raises(ModelNotFoundError, match="models/poems"):
        await rest.create(name="poems")
    with pytest.raises(ModelNotFoundError, match="models/letters/versions/2"):
        await rest.sessions.create(
            model="letters", version="2", session_id="", seed=None, expiration=Expiration(), labels={}
        )


@pytest.mark.parametrize(
    "labels",
    [
        {f"k{number}": "" for number in range(17)},
        {"": "x"},
        {"Upper": "x"},
        {"a" * 64: "x"},
        {"a" * 10_000: "x"},
        {"k": "x" * 64},
    ],
    ids=["many", "empty", "upper", "long", "very-long", "long-value"],
)
async def test_labels_have_bounds(rest, labels):
    """Too many, too long, or of other characters: refused with the field's name, at create and at update."""
    assert await refused_field(rest.create(labels=labels)) == "labels"
    info = await rest.create()
    update = rest.sessions.update(info.name, etag="", labels=LabelChange(labels), expiration=None)
    assert await refused_field(update) == "session.labels"


# Time


async def test_an_expiry_is_idle_time_or_a_moment(rest):
    """A ttl begins again with each turn, an expire time is fixed; neither outlives the absolute age."""
    idle, fixed = await rest.create(ttl=50.0), await rest.create(expire_time=START + 60)
    assert (idle.expire_time, fixed.expire_time) == (START + 50, START + 60)
    rest.clock.now += 40
    assert (await rest.commit(idle.name, [1], [])).expire_time == START + 90
    assert (await rest.commit(fixed.name, [1], [])).expire_time == START + 60
    long, far = await rest.create(ttl=1e9), await rest.create(expire_time=START + 1e9)
    assert long.expire_time == far.expire_time == START + 40 + ABSOLUTE
    rest.clock.now += ABSOLUTE - 1
    assert (await rest.commit(long.name, [1], [])).expire_time == START + 40 + ABSOLUTE


@pytest.mark.parametrize(
    ("field", "value"), [("ttl", 0.0), ("ttl", -1.0), ("expire_time", START), ("expire_time", 0.0)]
)
async def test_an_expiry_lies_ahead(rest, field, value):
    """No session is born dead."""
    assert await refused_field(rest.create(**{field: value})) == field
    info = await rest.create()
    update = rest.sessions.update(info.name, etag="", labels=None, expiration=Expiration(**{field: value}))
    assert await refused_field(update) == f"session.{field}"


async def test_an_expired_session_is_told_apart(rest):
    """Past its time a session is expired for everybody, for a turn too; its name is free."""
    await rest.create("abcd")
    rest.clock.now += IDLE
    for call in (
        rest.sessions.get("abcd"),
        rest.sessions.update("abcd", etag="", labels=LabelChange({}, replaces_all=True), expiration=None),
        rest.sessions.delete("abcd", etag=""),
        rest.sessions.transcript("abcd", 0, None),
    ):
        with pytest.raises(SessionExpiredError):
            await call
    assert (await rest.create("abcd")).create_time == START + IDLE


async def test_a_turn_does_not_wake_an_expired_session(rest):
    """Becoming the writer comes before looking whether the session is there, and keeps nothing alive by itself."""
    await rest.create("abcd")
    rest.clock.now += IDLE
    lease = rest.sessions.leases.take("abcd")
    with pytest.raises(SessionExpiredError):
        await rest.sessions.load("abcd")
    rest.sessions.leases.release(lease)


async def test_a_running_turn_keeps_its_session(rest):
    """Past its time a session with a turn is still there; the turn's commit gives it new time."""
    await rest.create("abcd")
    turn = await rest.begin("abcd", [1])
    rest.clock.now += IDLE + 1
    info = await rest.sessions.get("abcd")
    assert info.status is SessionStatus.GENERATING
    after = await turn.settle(FinishReason.MAX_CHARS)
    assert after is not None
    rest.release("abcd")
    renewed = rest.sessions.info("abcd", after)
    assert (renewed.status, renewed.expire_time) == (SessionStatus.ACTIVE, START + 2 * IDLE + 1)
    assert (await rest.sessions.get("abcd")).status is SessionStatus.ACTIVE


# Changed


async def test_update_changes_what_is_given(rest):
    """Labels and expiration change apart; everything else stays; the etag is new."""
    info = await rest.create("abcd", labels={"a": "1"}, seed=3)
    rest.clock.now += 10
    labelled = await rest.sessions.update(
        "abcd", etag=info.etag, labels=LabelChange({"b": "2"}, replaces_all=True), expiration=None
    )
    assert (labelled.labels, labelled.expire_time, labelled.update_time) == ({"b": "2"}, START + IDLE, START + 10)
    longer = await rest.sessions.update("abcd", etag="", labels=None, expiration=Expiration(ttl=200.0))
    assert (longer.labels, longer.expire_time) == ({"b": "2"}, START + 210)
    assert len({info.etag, labelled.etag, longer.etag}) == 3
    assert (longer.seed, longer.create_time, longer.position) == (3, START, 0)


@pytest.mark.parametrize("etag", ["0", "x", "W/1", "9" * 100])
async def test_a_stale_etag_changes_nothing(rest, etag):
    """Update and delete under a condition are refused with the etag that would have fitted."""
    info = await rest.create("abcd")
    for call in (
        rest.sessions.update("abcd", etag=etag, labels=LabelChange({"a": "b"}), expiration=None),
        rest.sessions.delete("abcd", etag=etag),
        rest.sessions.load("abcd", etag),
    ):
        with pytest.raises(EtagMismatchError) as refused:
            await call
        assert refused.value.current == info.etag
    assert await rest.sessions.get("abcd") == info


async def test_a_delete_under_a_condition_keeps_the_condition(rest, monkeypatch):
    """However often a commit comes in between, what was seen last is not deleted unseen: it is busy, and stays."""
    session = await rest.create("abcd")
    delete = rest.store.delete

    async def disturbed(name: str, revision: int | None) -> None:
        if revision is not None:
            raise RevisionMismatchError(f"sessions/{name}")
        await delete(name, revision)

    monkeypatch.setattr(rest.store, "delete", disturbed)
    with pytest.raises(SessionBusyError):
        await rest.sessions.delete("abcd", etag=session.etag)
    assert await rest.sessions.get("abcd") == session


async def test_a_deleted_session_is_unknown(rest):
    """Deleted with its etag or without, it is as if it had never been."""
    for etag in ("", (await rest.create("other-1")).etag):
        name = "other-1" if etag else "other-2"
        if not etag:
            await rest.create(name)
        await rest.sessions.delete(name, etag=etag)
        with pytest.raises(SessionNotFoundError):
            await rest.sessions.get(name)


async def test_a_turn_does_not_commit_to_another_session_of_the_same_name(rest):
    """Deleted and made again during a turn, the new session has nothing of the old one's turn."""
    await rest.create("abcd")
    turn = await rest.begin("abcd", [1, 2])
    await rest.sessions.delete("abcd", etag="")
    rest.clock.now += 1
    again = await rest.create("abcd")
    with pytest.raises(SessionNotFoundError):
        await turn.settle(FinishReason.MAX_CHARS)
    rest.release("abcd")
    assert (await rest.sessions.get("abcd")).etag == again.etag


async def test_delete_tells_the_running_turn(rest):
    """The turn ends with the error that its session was deleted."""
    await rest.create("abcd")
    lease = rest.sessions.leases.take("abcd")
    told: list[object] = []
    lease.watch(told.append)
    await rest.sessions.delete("abcd", etag="")
    assert [type(end) for end in told] == [SessionNotFoundError]


# One writer


async def test_an_end_that_comes_too_early_is_not_lost(rest):
    """An end that is asked for before a turn listens is reported to it as soon as it does."""
    lease = rest.sessions.leases.take("abcd")
    lease.interrupt(FinishReason.CANCELLED)
    told: list[object] = []
    lease.watch(told.append)
    assert told == [FinishReason.CANCELLED]


async def test_a_session_has_one_writer(rest):
    """A second writer is refused with a time to retry until the first releases the session; release may be repeated."""
    first = rest.sessions.leases.take("abcd")
    with pytest.raises(SessionBusyError) as refused:
        rest.sessions.leases.take("abcd")
    assert refused.value.retry_after > 0
    rest.sessions.leases.take("efgh")
    rest.sessions.leases.release(first)
    second = rest.sessions.leases.take("abcd")
    rest.sessions.leases.release(first)  # its own only
    assert rest.sessions.leases.running("abcd") is second
    assert first.done.is_set()
    assert not second.done.is_set()


async def test_turns_without_a_session_do_not_meet(rest):
    """One-shot turns have nothing to write to."""
    rest.sessions.leases.take(None)
    rest.sessions.leases.take(None)


async def test_a_commit_keeps_what_changed_beside_it(rest):
    """Labels that are updated while a turn is committed survive it."""
    await rest.create("abcd", labels={"a": "1"})
    commit = rest.store.commit
    tries = []

    async def late(*args, **options):
        tries.append(args)
        if len(tries) == 1:
            await rest.sessions.update("abcd", etag="", labels=LabelChange({"a": "2"}), expiration=None)
        return await commit(*args, **options)

    rest.store.commit = late
    info = await rest.commit("abcd", [1, 2], [3])
    assert (info.labels, info.position, info.turn_count) == ({"a": "2"}, 3, 1)
    assert len(await rest.store.segments("abcd")) == 1


async def test_a_commit_that_always_loses_gives_up(rest):
    """Endless competition ends with an error that says to come again, not in a loop."""
    await rest.create("abcd")

    async def never(*_, **__):
        raise RevisionMismatchError("sessions/abcd")

    rest.store.commit = never
    with pytest.raises(SessionBusyError):
        await rest.sessions.update("abcd", etag="", labels=LabelChange({}, replaces_all=True), expiration=None)


# Listed


async def test_a_list_is_walked_by_pages(rest):
    """Every session is listed once, in name order; the last token is empty."""
    chosen = sorted([(await rest.create()).name for _ in range(25)])
    found: list[str] = []
    token = ""
    while True:
        page = await rest.sessions.list(page_size=10, page_token=token, filter=Filter())
        found += [info.name for info in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert found == chosen
    whole = await rest.sessions.list(page_size=0, page_token="", filter=Filter())
    assert [info.name for info in whole.sessions] == chosen


async def test_a_list_is_filtered(rest):
    """By model, version, state and labels, and by several of them."""
    for number in range(8):
        await rest.create(
            f"s-{number:02}",
            name="other" if number % 2 else "letters",
            labels={"half": str(number // 4), "number": str(number)},
        )
    await rest.begin("s-02", [1])
    for wanted, expected in (
        (Filter(model="other"), ["s-01", "s-03", "s-05", "s-07"]),
        (Filter(labels={"half": "1"}), ["s-04", "s-05", "s-06", "s-07"]),
        (Filter("letters", labels={"half": "1"}), ["s-04", "s-06"]),
        (Filter("letters", "1"), ["s-00", "s-02", "s-04", "s-06"]),
        (Filter("letters", "2"), []),
        (Filter(status=SessionStatus.GENERATING), ["s-02"]),
        (Filter("other", status=SessionStatus.ACTIVE, labels={"half": "0"}), ["s-01", "s-03"]),
        (Filter(labels={"half": "1", "number": "3"}), []),
        (Filter(labels={"none": ""}), []),
    ):
        page = await rest.sessions.list(page_size=100, page_token="", filter=wanted)
        assert [info.name for info in page.sessions] == expected


async def test_a_page_token_is_of_one_list(rest):
    """Forged, or of another filter: refused."""
    for number in range(4):
        await rest.create(f"s-{number:02}")
    page = await rest.sessions.list(page_size=2, page_token="", filter=Filter())
    for token, wanted in (
        (page.next_page_token, Filter(model="letters")),
        (page.next_page_token, Filter(status=SessionStatus.ACTIVE)),
        ("forged", Filter()),
    ):
        call = rest.sessions.list(page_size=2, page_token=token, filter=wanted)
        assert await refused_field(call) == "page_token"


async def test_a_page_has_a_largest_size(rest, monkeypatch):
    """What asks for more gets that; a negative number is refused."""
    monkeypatch.setattr("elman_server.sessions.pages.MAX_PAGE", 5)
    for number in range(7):
        await rest.create(f"s-{number:02}")
    page = await rest.sessions.list(page_size=2**31 - 1, page_token="", filter=Filter())
    assert (len(page.sessions), bool(page.next_page_token)) == (5, True)
    assert await refused_field(rest.sessions.list(page_size=-1, page_token="", filter=Filter())) == "page_size"


async def test_sessions_are_deleted_by_a_filter(rest, monkeypatch):
    """All that it keeps, more than a page, with their turns; the others stay, and doing it again deletes none."""
    monkeypatch.setattr("elman_server.sessions.service.MAX_PAGE", 3)
    for number in range(10):
        await rest.create(f"s-{number:02}", labels={"half": str(number // 5)})
    await rest.begin("s-06", [1])
    lease = rest.sessions.leases.running("s-06")

    assert await rest.sessions.delete_all(Filter(labels={"half": "1"})) == 5
    assert isinstance(lease.end, SessionNotFoundError)
    assert await rest.sessions.delete_all(Filter(labels={"half": "1"})) == 0
    page = await rest.sessions.list(page_size=0, page_token="", filter=Filter())
    assert [info.name for info in page.sessions] == [f"s-{number:02}" for number in range(5)]
    assert await rest.sessions.delete_all(Filter()) == 5


async def test_a_session_that_changed_meanwhile_is_not_deleted(rest):
    """Of two that the filter kept, the one that got another label before its turn came stays."""
    for name in ("s-01", "s-02"):
        await rest.create(name, labels={"a": "1"})
    delete = rest.sessions.delete

    async def then_label(name: str, *, etag: str) -> None:
        await delete(name, etag=etag)
        await rest.sessions.update("s-02", etag="", labels=LabelChange({"a": "2"}), expiration=None)

    rest.sessions.delete = then_label
    assert await rest.sessions.delete_all(Filter(labels={"a": "1"})) == 1
    assert (await rest.sessions.get("s-02")).labels == {"a": "2"}


# Made once


ONCE = Creation(bytes(15) + b"\x01", b"digest")


@pytest.mark.parametrize("session_id", ["", "abcd"])
async def test_a_create_that_comes_twice_makes_one_session(rest, session_id):
    """The second one, and one at the same time, is answered with the session as it now is."""

    async def create(creation: Creation) -> SessionInfo:
        made: SessionInfo = await rest.create(session_id, creation=creation)
        return made

    first, second = await asyncio.gather(create(ONCE), create(ONCE))
    assert first == second
    after = await rest.commit(first.name, [0], [1])
    assert await create(ONCE) == after
    other = replace(ONCE, digest=b"other")
    if session_id:
        with pytest.raises(SessionExistsError):
            await create(other)
    else:
        assert await refused_field(create(other)) == "request_id"
        assert (await create(ANONYMOUS)).name != first.name
    await rest.sessions.delete(first.name, etag="")
    assert (await create(other)).position == 0


async def test_a_create_that_comes_twice_finds_no_limit(rest):
    """A server that is full answers a create that it has done before."""
    rest.store._max_sessions = 1
    first = await rest.create(creation=ONCE)
    rest.sessions.leases.take(first.name).is_found = True  # not evicted
    with pytest.raises(QuotaError):
        await rest.create()
    assert await rest.create(creation=ONCE) == first


async def test_seeds_of_the_server_are_exact_numbers_in_javascript(rest):
    """Below 2^53, whatever the chance."""
    assert all([(await rest.create()).seed < 2**53 for _ in range(100)])
    assert SEED_BITS <= 53


async def test_a_list_says_who_is_busy_and_who_is_over(rest):
    """The state of each session is that of the moment."""
    for name in ("busy", "idle", "over"):
        await rest.create(name, ttl=1.0 if name == "over" else 50.0)
    await rest.begin("busy", [1])
    rest.clock.now += 10
    page = await rest.sessions.list(page_size=0, page_token="", filter=Filter())
    assert {info.name: info.status for info in page.sessions} == {
        "busy": SessionStatus.GENERATING,
        "idle": SessionStatus.ACTIVE,
        "over": SessionStatus.EXPIRED,
    }


# The transcript


async def test_a_transcript_is_cut_by_positions(rest):
    """Any part of it, with the turns that it touches."""
    await rest.create("abcd")
    await rest.commit("abcd", [0, 1], [2, 3])
    await rest.commit("abcd", [4], [])
    await rest.commit("abcd", [], [5, 6, 7])
    turns = (CommittedTurn(0, 2, 4, ASKED, 0), CommittedTurn(4, 5, 5, ASKED, 1), CommittedTurn(5, 5, 8, ASKED, 2))
    whole = await rest.sessions.transcript("abcd", 0, None)
    assert (whole.text, whole.start, whole.end, whole.turns) == ("abcdefgh", 0, 8, turns)
    for start in range(9):
        for end in range(start, 9):
            part = await rest.sessions.transcript("abcd", start, end)
            assert part.text == "abcdefgh"[start:end]
            touched = tuple(turn for turn in turns if turn.start < end and turn.end > start)
            assert part.turns == touched


@pytest.mark.parametrize("part_chars", [2, 3])
async def test_a_part_of_a_long_transcript_reads_little(rest, monkeypatch, part_chars):
    """Of many segments only those of the turns around the part are read; turns of many segments are whole."""
    await rest.create("abcd")
    text, turns = "", []
    for number in range(200):
        parts = 40 if number == 30 else 1
        start = len(text)
        for part in range(parts):
            ids = [(number + part + at) % 8 for at in range(part_chars)]
            text += "".join("abcdefgh"[character] for character in ids)
            segment = Segment.of(
                len(text) - part_chars,
                ids if not part else [],
                [] if not part else ids,
                parameters=None if part else ASKED,
                outcome=Outcome(FinishReason.MAX_CHARS, "", b"") if part == parts - 1 and number % 5 else None,
            )
            await _append(rest, segment)
        turns.append((start, len(text)))
    num_read = 0
    read = rest.sessions.segments

    async def counted(session_id: str, start: int, end: int) -> Sequence[Segment]:
        nonlocal num_read
        found: Sequence[Segment] = await read(session_id, start, end)
        num_read += len(found)
        return found

    whole = await rest.sessions.transcript("abcd", 0, None)
    assert [(turn.start, turn.end) for turn in whole.turns] == turns
    monkeypatch.setattr(rest.sessions, "segments", counted)
    for start in range(0, len(text) + 1, 7):
        for size in (0, 1, 4, 13):
            end = min(len(text), start + size)
            num_read = 0
            part = await rest.sessions.transcript("abcd", start, end)
            assert part.text == text[start:end]
            assert part.turns == tuple(turn for turn in whole.turns if turn.start < end and turn.end > start)
            assert num_read <= 100
    beginning = await rest.sessions.transcript("abcd", 4, 5)
    assert beginning.text == text[4]


async def test_a_text_that_is_missing_in_the_store_is_no_empty_text(rest, monkeypatch):
    """Segments that are not there are data loss."""
    await rest.create("abcd")
    await rest.commit("abcd", [0, 1], [2, 3])
    await rest.commit("abcd", [4], [])
    read = rest.sessions.segments

    async def robbed(session_id: str, start: int, end: int) -> Sequence[Segment]:
        found: Sequence[Segment] = await read(session_id, start, end)
        return found[:1]

    monkeypatch.setattr(rest.sessions, "segments", robbed)
    with pytest.raises(CorruptRecordError):
        await rest.sessions.transcript("abcd", 0, None)


async def _append(rest: Rest, segment: Segment) -> None:
    """Add a segment as commits do."""

    def change(head: Head) -> Change:
        return Change(
            msgspec.structs.replace(head, position=segment.end, num_segments=head.num_segments + 1), (segment,)
        )

    await rest.sessions.change("abcd", change)


@pytest.mark.parametrize(
    ("start", "end", "field"), [(0, 9, "end"), (0, -1, "end"), (-1, 4, "start"), (5, 4, "start"), (9, None, "start")]
)
async def test_a_transcript_has_bounds(rest, start, end, field):
    """Positions past the end are refused with the valid range."""
    await rest.create("abcd")
    await rest.commit("abcd", [0, 1], [2, 3, 4, 5, 6, 7])
    with pytest.raises(PositionOutOfRangeError, match=f"^{field}: is"):
        await rest.sessions.transcript("abcd", start, end)


# Pinned


async def test_a_session_is_pinned_to_its_model(rest):
    """Served with other weights under the same name, a model does not continue its old sessions."""
    await rest.create("abcd")
    head, _ = await rest.sessions.load("abcd")
    assert rest.sessions.model_of(head).digest == "a" * 64
    rest.models.load([model(digest="b" * 64)])
    with pytest.raises(ModelMismatchError, match="create a new session"):
        rest.sessions.model_of(head)


async def test_a_corrupt_record_is_told(rest):
    """A stored session that was changed is an error, not another session."""
    rest.store.keeps_objects = False
    await rest.create("abcd")
    entry = rest.store._entries["abcd"]
    entry.head = entry.head[:-1] + bytes([entry.head[-1] ^ 1])
    with pytest.raises(CorruptRecordError):
        await rest.sessions.get("abcd")


@pytest.mark.parametrize(("ahead", "is_believed"), [(1.0, True), (64.0, True), (66.0, False), (3600.0, False)])
async def test_a_lease_that_no_server_can_have_is_not_believed(rest, ahead, is_believed):
    """A server whose clock was an hour ahead when it died keeps no session busy for that hour."""
    await rest.create("abcd")
    await rest.begin("abcd", [1])

    def move(head: Head) -> Change:
        assert head.open is not None
        moved = msgspec.structs.replace(head.open, writer="another", lease_expires=rest.clock.now + ahead)
        return Change(msgspec.structs.replace(head, open=moved))

    head = await rest.sessions.change("abcd", move)
    assert rest.sessions.is_leased(head) is is_believed


async def test_two_callers_with_equal_requests_for_one_id_are_two(rest):
    """The session of one is not the other's, who hears that the id is taken; the same request again returns it."""
    one, other = (Creation(bytes(15) + bytes([n]), b"digest with the id of caller %d" % n) for n in (1, 2))
    created = await create_as(rest, one)
    assert await create_as(rest, one) == created
    with pytest.raises(SessionExistsError):
        await create_as(rest, other)


async def create_as(rest: Rest, creation: Creation) -> SessionInfo:
    """Create the session `abcd` by a request."""
    return await rest.sessions.create(
        model="letters", version=None, session_id="abcd", seed=1, expiration=Expiration(), labels={}, creation=creation
    )
