import asyncio
import math
import socket
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import numpy as np
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
from elman_client._shared.connection import Call
from elman_client._shared.tracing import Span
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
    """A value of the wrong type is a TypeError that says what is right, and is never sent."""
    num_before = len(server.servicer.headers)
    for call, sentence in (
        (lambda: session.append(5), "text is a str, not int"),
        (lambda: session.append(b"a"), "text is a str, not bytes"),
        (lambda: client.create_session("tiny", seed="x"), "seed is an int, not str"),
        (lambda: client.create_session("tiny", seed=True), "seed is an int, not bool"),
        (lambda: client.create_session("tiny", seed=7.0), "seed is an int, not float"),
        (lambda: client.create_session("tiny", ttl=60), "ttl is a timedelta, not int"),
        (lambda: client.create_session("tiny", labels=[("a", "b")]), "labels is a mapping of str to str, not list"),
        (lambda: client.create_session("tiny", labels={"a": 1}), "labels\\['a'\\] is a str, not int"),
        (lambda: client.create_session(5), "a name is a str, not int"),
        (lambda: client.import_session("text"), "snapshot is bytes, not str"),
        (lambda: client.list_models(timeout="soon"), "timeout is a number, not str"),
        (lambda: client.list_models(timeout=True), "timeout is a number, not bool"),
        (lambda: session.update(expire_time=5), "expire_time is a datetime, not int"),
        (lambda: session.append("a", unknown_characters=["skip"]), "unknown_characters is a str or ReplaceWith"),
        (lambda: session.fork(True), "position is an int, not bool"),
    ):
        with pytest.raises(TypeError, match=sentence):
            await call()
    for options, sentence in (
        ({"logit_bias": [("a", 1)]}, "logit_bias is a mapping of characters to numbers.*, not list"),
        ({"logit_bias": {"a": "1"}}, "logit_bias\\['a'\\] is a number, not str"),
        ({"allowed_characters": ["a", "b"]}, "allowed_characters is a str, not list"),
        ({"banned_characters": b"ab"}, "banned_characters is a str, not bytes"),
        ({"stop_strings": b"ab"}, "stop_strings is a str or a sequence of them, not bytes"),
        ({"stop_strings": ["a", 5]}, "each of stop_strings is a str, not int"),
        ({"temperature": True}, "temperature is a number, not bool"),
        ({"include_stop": 1}, "include_stop is True or False, not int"),
        ({"max_chars": Decimal(5)}, "max_chars is an int, not decimal.Decimal"),
        ({"on_abort": 1}, "on_abort is an OnAbort, not int"),
        ({"timeout": "1"}, "timeout is a number, not str"),
    ):
        with pytest.raises(TypeError, match=sentence):
            session.generate("a", **options)
    assert len(server.servicer.headers) == num_before


async def test_numbers_are_numbers_everywhere(client, session):
    """NumPy's and Decimal are judged like Python's own, in a parameter as in a timeout."""
    for number in (0.5, Decimal("0.5"), np.float32(0.5), np.float64(0.5), Fraction(1, 2)):
        generation = session.generate("a", max_chars=np.int64(1), temperature=number, include_stop=np.True_)
        assert len([piece async for piece in generation]) == 1
        assert generation.started.sampling.temperature == 0.5
        assert await client.list_models(timeout=10 * number)


@pytest.mark.parametrize("seconds", [1e10, 10**20, 10**400, math.inf, Decimal("1e30")])
async def test_a_large_timeout_is_none(client, session, seconds):
    """More seconds than anyone waits are no deadline."""
    assert await client.list_models(timeout=seconds)
    assert len([piece async for piece in session.generate("a", max_chars=1, timeout=seconds)]) == 1


async def test_a_timeout_counts_from_the_call_that_waits(session, server):
    """A generation that is read later than its timeout after it was made has all of it."""
    server.servicer.seconds_per_chunk = 0.01
    generation = session.generate("a", max_chars=4, timeout=2)
    chat = session.chat(timeout=2)
    await asyncio.sleep(2.1)
    assert len([piece async for piece in generation]) == 1
    await chat.say("a", max_chars=4)
    await chat.end()
    assert len([event async for event in chat.events()]) == 3


@pytest.mark.parametrize(
    ("metadata", "kind", "sentence"),
    [
        ({"Authorization": "x"}, InvalidArgumentError, "'Authorization' is no name of a header: use lower-case"),
        ({"": "x"}, InvalidArgumentError, "'' is no name of a header"),
        ({"grpc-timeout": "x"}, InvalidArgumentError, "'grpc-timeout' is one of gRPC's own headers"),
        ({"a": "Zoë\n"}, InvalidArgumentError, "the value of 'a' has characters outside printable ASCII"),
        ({"a": 5}, TypeError, r"metadata\['a'\] is a str, not int"),
        ({"a-bin": "x"}, TypeError, r"metadata\['a-bin'\] is a bytes, not str"),
        ({5: "x"}, TypeError, "each name of metadata is a str, not int"),
        ([("a", "b")], TypeError, "metadata is a mapping, .*, not list"),
    ],
)
def test_malformed_metadata_is_refused_at_once(connect, metadata, kind, sentence):
    """It is the caller's error, not the server's."""
    with pytest.raises(kind, match=sentence):
        connect("localhost:1", metadata=metadata)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("http://localhost:50051", "is a URL; gRPC takes a host and a port: 'localhost:50051'$"),
        ("https://example.com:443/x", "is a URL; gRPC takes a host and a port: 'example.com:443' with tls=True"),
        (" ", "is empty; it is a host and a port"),
    ],
)
def test_a_target_is_a_host_and_a_port(connect, target, sentence):
    """A URL is explained."""
    with pytest.raises(InvalidArgumentError, match=sentence):
        connect(target)


async def test_a_silent_port_is_not_serving(connect):
    """Something accepts the connection and says nothing: that is no, and no error."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with connect(f"127.0.0.1:{silent.getsockname()[1]}") as client:
            assert await client.is_serving(timeout=0.2) is False


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


def test_a_token_is_shown_to_nobody(connect):
    """It is not sent without TLS to another machine, and a call that is printed lacks it."""
    with pytest.raises(ValueError, match="would be sent in clear: pass tls=True"):
        connect("example.com:50051", token="secret")
    headers = (("authorization", "Bearer secret"),)
    assert "secret" not in repr(Call("localhost:1", "id", headers, None, Span("/a/b", "localhost:1", "id")))


def test_settings_that_would_not_be_used_are_refused(connect, tmp_path):
    """Settings of TLS that contradict one another are refused at once."""
    with pytest.raises(ValueError, match="tls=True"):
        connect("localhost:1", root_certificates=tmp_path / "roots.pem")
    with pytest.raises(FileNotFoundError):
        connect("localhost:1", tls=True, root_certificates=tmp_path / "roots.pem")
    with pytest.raises(TypeError, match="target"):
        connect(50051)
