import math
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from elman_client import (
    AlreadyExistsError,
    Cell,
    FailedPreconditionError,
    InvalidArgumentError,
    Limits,
    ModelNotFoundError,
    SessionNotFoundError,
    SessionState,
    UnavailableError,
    UnknownCharacter,
)
from tests.client.fake_memory import VOCABULARY


async def test_models_come_as_values(client):
    """A listed model is a frozen value that says what the server said."""
    models = await client.list_models()

    assert [model.name for model in models] == ["models/shakespeare", "models/tiny"]
    assert models[0].cell == Cell.LSTM
    assert models[0].vocabulary == VOCABULARY
    assert models[0].limits == Limits(1000, 1000, 4, 16)


async def test_models_of_all_pages_are_listed(client, server):
    """However few the server sends at once, no model is missing."""
    server.servicer.models_on_a_page = 1

    assert [model.name for model in await client.list_models()] == ["models/shakespeare", "models/tiny"]


@pytest.mark.parametrize("name", ["tiny", "models/tiny"])
async def test_a_model_is_found_by_both_forms_of_its_name(client, name):
    """The collection may be left out of a model's name."""
    assert (await client.get_model(name)).name == "models/tiny"


async def test_an_unknown_model_is_an_error_of_its_own(client):
    """A model that is not served is told apart from a session that is not there."""
    with pytest.raises(ModelNotFoundError):
        await client.get_model("hamlet")


async def test_text_is_encoded(client):
    """Encoding tells the ids of known characters and the places of unknown ones."""
    encoding = await client.encode_text("tiny", "a€b")

    assert encoding.ids == (VOCABULARY.index("a"), VOCABULARY.index("b"))
    assert encoding.unknown_characters == (UnknownCharacter("€", 1),)


async def test_health_is_yes_or_no(client):
    """A server that is asked for its health says whether it serves."""
    assert await client.is_serving() is True
    assert await client.is_serving("sleeping") is False


async def test_nobody_there_is_not_serving(connect):
    """A server that cannot be reached does not serve, and that is no error."""
    async with connect("127.0.0.1:1") as client:
        assert await client.is_serving() is False


async def test_nobody_there_is_unavailable(connect):
    """Any other call to a server that cannot be reached says where and what to do."""
    async with connect("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError, match=r"^127.0.0.1:1: .*is elman-server running") as e:
            await client.list_models()
    assert UUID(e.value.request_id).version == 4


async def test_a_session_knows_what_it_was_made_of(client):
    """A created session carries the values that it was created with."""
    before = datetime.now(UTC) - timedelta(seconds=1)

    session = await client.create_session(
        "shakespeare", session_id="mine", seed=7, ttl=timedelta(hours=1), labels={"user": "ann"}
    )

    assert session.name == "sessions/mine"
    assert session.info.model == "models/shakespeare/versions/1"
    assert session.info.state == SessionState.ACTIVE
    assert session.info.seed == 7
    assert session.info.labels == {"user": "ann"}
    assert before < session.info.create_time < datetime.now(UTC)
    assert session.info.expire_time > before + timedelta(hours=1)


@pytest.mark.usefixtures("session")
async def test_a_taken_id_is_refused(client):
    """Two sessions cannot have one name."""
    with pytest.raises(AlreadyExistsError):
        await client.create_session("shakespeare", session_id="mine")


@pytest.mark.parametrize("name", ["mine", "sessions/mine"])
async def test_get_session_looks_at_it(client, session, name):
    """A session is found by both forms of its name, and its snapshot is there."""
    assert (await client.get_session(name)).info == session.info


async def test_session_attaches_without_a_call(client, server):
    """Attaching by name sends nothing; the snapshot comes with refresh."""
    session = client.session("nobody")

    assert server.servicer.headers == []
    with pytest.raises(FailedPreconditionError, match="refresh"):
        _ = session.info
    with pytest.raises(SessionNotFoundError):
        await session.refresh()


async def test_list_sessions_turns_the_pages(client):
    """Listing goes on over the pages until there are no more."""
    for number in range(5):
        await client.create_session("tiny", session_id=f"number-{number}")

    names = [session.name async for session in client.list_sessions(page_size=2)]

    assert names == [f"sessions/number-{number}" for number in range(5)]


async def test_update_changes_what_is_given(session):
    """Labels and expiration change apart from one another."""
    moment = datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)

    await session.update(labels={"user": "bob"})
    info = await session.update(expire_time=moment)

    assert info.labels == {"user": "bob"}
    assert info.expire_time == moment
    assert session.info == info
    assert (await session.update(labels={})).labels == {}


async def test_labels_of_a_snapshot_can_be_sent_back(session):
    """A read-only mapping is as good as a dict."""
    await session.update(labels={"user": "bob"})

    assert (await session.update(labels=session.info.labels)).labels == {"user": "bob"}


async def test_delete_forgets(session):
    """A deleted session is not there any more."""
    await session.delete()

    with pytest.raises(SessionNotFoundError, match="create a session"):
        await session.refresh()


async def test_append_feeds_and_transcript_shows(session):
    """What is appended is in the transcript and counts as a turn."""
    appended = await session.append("To be", log_probability=True)
    transcript = await session.transcript(3)

    assert appended.session.position == 5
    assert session.info == appended.session
    assert [d.log_probability for d in appended.details] == [None, -0.5, -0.5, -0.5, -0.5]
    assert (transcript.text, transcript.start, transcript.end) == ("be", 3, 5)
    assert [(t.start, t.prompt_end, t.end) for t in transcript.turns] == [(0, 5, 5)]


async def test_score_judges_after_a_session_or_from_a_beginning(client, session):
    """The first character has a probability only if something came before it."""
    await session.append("To be")

    assert (await session.score("or")).num_scored == 2
    score = await client.score("or", model="tiny")
    assert (score.num_scored, score.log_probability) == (1, -0.5)
    assert score.details[0].log_probability is None


async def test_every_call_brings_an_id_and_its_session(client, session, server):
    """A request id goes with every call, the session's id with those that concern one."""
    await session.refresh()
    await client.list_models()

    refresh, listing = server.servicer.headers[-2:]
    assert refresh["x-session-id"] == "mine"
    assert "x-session-id" not in listing
    assert UUID(refresh["x-request-id"]) != UUID(listing["x-request-id"])


async def test_what_is_done_once_brings_its_key(client, session, server):
    """A turn has its request id as the key by which a proxy may send it again; a read has none."""
    await session.append("To be", request_id="00000000-0000-4000-8000-0000000000af")
    await client.list_models()

    append, listing = server.servicer.headers[-2:]
    assert append["idempotency-key"] == "00000000-0000-4000-8000-0000000000af"
    assert "idempotency-key" not in listing


async def test_metadata_goes_with_every_call(connect, server):
    """The client's own headers go with every call."""
    async with connect(server.target, metadata={"authorization": "Bearer x"}) as client:
        await client.list_models()
    assert server.servicer.headers[0]["authorization"] == "Bearer x"


async def test_a_closed_client_says_so(connect, server):
    """A call on a closed client fails with a sentence of its own."""
    client = connect(server.target)
    await client.aclose()

    with pytest.raises(FailedPreconditionError, match="client is closed"):
        await client.list_models()


async def test_wrong_types_are_python_errors(client, session, server):
    """A value of the wrong type is a TypeError that names the argument, and is never sent."""
    num_before = len(server.servicer.headers)
    for call, argument in (
        (lambda: session.append(5), "text"),
        (lambda: client.create_session("tiny", seed="x"), "seed"),
        (lambda: client.create_session("tiny", ttl=60), "ttl"),
        (lambda: client.create_session(5), "name"),
        (lambda: client.list_models(timeout="soon"), "timeout"),
        (lambda: session.update(expire_time=5), "expire_time"),
    ):
        with pytest.raises(TypeError, match=argument):
            await call()
    assert len(server.servicer.headers) == num_before


async def test_values_that_cannot_be_sent_are_invalid_arguments(client, session):
    """What protobuf cannot carry fails like what the server refuses, with the field's name."""
    for call, field in (
        (lambda: session.append("\ud800"), "text"),
        (lambda: client.create_session("tiny", seed=2**64), "seed"),
        (lambda: client.list_models(timeout=0), "timeout"),
        (lambda: client.list_models(timeout=math.nan), "timeout"),
        (lambda: session.append("a", unknown_characters="keep"), "unknown_characters"),
        (lambda: session.update(expire_time=datetime(2100, 1, 1)), "expire_time"),  # noqa: DTZ001
        (
            lambda: client.create_session("tiny", ttl=timedelta(1), expire_time=datetime.now(UTC) + timedelta(1)),
            "ttl",
        ),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            await call()
        assert [v.field for v in caught.value.field_violations] == [field]


def test_settings_that_would_not_be_used_are_refused(connect, tmp_path):
    """Settings of TLS that contradict one another are refused at once."""
    with pytest.raises(ValueError, match="tls=True"):
        connect("localhost:1", root_certificates=tmp_path / "roots.pem")
    with pytest.raises(FileNotFoundError):
        connect("localhost:1", tls=True, root_certificates=tmp_path / "roots.pem")
    with pytest.raises(TypeError, match="target"):
        connect(50051)
