import asyncio
from dataclasses import replace

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from elman.v1 import generation_pb2, model_pb2, session_pb2
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman_server.domain import requests as domain
from elman_server.grpc.messages.build import (
    from_chat,
    from_generated,
    from_model,
    from_replayed,
    from_resumed,
    from_session,
    from_transcript,
)
from elman_server.sessions.pages import PageToken
from elman_server.sessions.session import Expiration, Filter, LabelChange, SessionStatus
from tests.server.grpc.fakes import CHUNK, FINISHED, MODEL, REPLAYED, SESSION, STARTED, TRANSCRIPT

REQUEST_ID = "00000000-0000-0000-0000-0000000000af"
RAW_ID = bytes(15) + b"\xaf"


async def test_session_calls_reach_the_domain(served):
    """Each session method converts, calls and converts back."""
    stub = served.session
    create = session_pb2.CreateSessionRequest(
        model="models/tiny/versions/1",
        session_id="abcd",
        seed=0,
        ttl=Duration(seconds=5),
        labels={"a": "b"},
        initial_state="juliet",
        request_id=REQUEST_ID,
    )
    update = session_pb2.UpdateSessionRequest(
        session=session_pb2.Session(name="sessions/abcd", etag="1f", labels={"a": "b"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    listed = session_pb2.ListSessionsRequest(page_size=3, page_token="t", filter='labels.a = "b"')

    created = await stub.CreateSession(create)
    await stub.CreateSession(session_pb2.CreateSessionRequest(model="models/tiny"))
    got = await stub.GetSession(session_pb2.GetSessionRequest(name="sessions/abcd"))
    page = await stub.ListSessions(listed)
    updated = await stub.UpdateSession(update)
    await stub.DeleteSession(session_pb2.DeleteSessionRequest(name="sessions/abcd", etag="1f"))
    deleted = await stub.DeleteSessions(session_pb2.DeleteSessionsRequest(filter='state = "ACTIVE"'))
    transcript = await stub.GetTranscript(session_pb2.GetTranscriptRequest(name="sessions/abcd", start=3, end=0))
    await stub.GetTranscript(session_pb2.GetTranscriptRequest(name="sessions/abcd"))

    assert [answer.session for answer in (created, got, updated)] == [from_session(SESSION)] * 3
    assert page == session_pb2.ListSessionsResponse(sessions=[from_session(SESSION)], next_page_token="more")
    assert transcript == from_transcript(TRANSCRIPT)
    assert deleted.deleted_count == 3
    assert served.sessions.calls == [
        ("tiny", "1", "abcd", 0, Expiration(ttl=5.0), {"a": "b"}, "juliet", RAW_ID),
        ("tiny", None, "", None, Expiration(), {}, "default", b""),
        ("abcd",),
        (3, "t", Filter(labels={"a": "b"})),
        ("abcd", "1f", LabelChange({"a": "b"}, replaces_all=True), None),
        ("abcd", "1f"),
        (Filter(status=SessionStatus.ACTIVE),),
        ("abcd", 3, 0),
        ("abcd", 0, None),
    ]


async def test_calls_about_the_past_reach_the_domain(served):
    """Fork, rewind, export, import and replay convert, call and convert back."""
    stub, name = served.session, "sessions/abcd"
    forked = await stub.ForkSession(
        session_pb2.ForkSessionRequest(name=name, position=0, count=2, request_id=REQUEST_ID)
    )
    await stub.ForkSession(session_pb2.ForkSessionRequest(name=name))
    rewound = await stub.RewindSession(session_pb2.RewindSessionRequest(name=name, position=3, etag="1f"))
    exported = [answer async for answer in stub.ExportSession(session_pb2.ExportSessionRequest(name=name))]
    first = session_pb2.ImportSessionRequest(snapshot=b"x", session_id="efgh", request_id=REQUEST_ID)
    imported = await stub.ImportSession(iter([first, session_pb2.ImportSessionRequest(snapshot=b"yz")]))
    replayed = [answer async for answer in stub.ReplaySession(session_pb2.ReplaySessionRequest(name=name))]

    assert list(forked.sessions) == [from_session(SESSION)] * 2
    assert rewound.session == imported.session == from_session(SESSION)
    assert [answer.snapshot for answer in exported] == [b"s" * 65536, b"s"]
    assert replayed == [from_replayed(REPLAYED)]
    assert served.history.calls == [
        ("abcd", 0, 2, RAW_ID),
        ("abcd", None, 0, b""),
        ("abcd", 3, "1f"),
        "abcd",
        (b"xyz", "efgh", RAW_ID),
        "abcd",
    ]


async def test_a_resumed_stream_is_the_domains_events(served):
    """Resume sends every event, in order."""
    call = served.generation.Resume(
        generation_pb2.ResumeRequest(session="sessions/abcd", request_id=REQUEST_ID, position=3)
    )

    assert [event async for event in call] == [from_resumed([event]) for event in (STARTED, CHUNK, FINISHED)]
    assert served.turns.calls == [domain.ResumeRequest("abcd", RAW_ID, 3)]


async def test_chat_takes_turns_one_after_another(served):
    """Every turn's events are sent, a Stop that ends nothing sends nothing, and an action that is none is refused."""
    turn = generation_pb2.ChatRequest(turn=generation_pb2.GenerateRequest(model="models/tiny", prompt="a"))
    stop = generation_pb2.ChatRequest(stop=generation_pb2.Stop())
    call = served.generation.Chat(iter([stop, turn, stop, turn]))
    assert [event async for event in call] == [from_chat([event]) for event in (STARTED, CHUNK, FINISHED)] * 2

    refused = served.generation.Chat(iter([generation_pb2.ChatRequest()]))
    assert await refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "action: is not set" in await refused.details()


async def test_model_calls_reach_the_catalogue(served):
    """Models are listed, got, and encode texts."""
    stub = served.models
    listed = await stub.ListModels(model_pb2.ListModelsRequest())
    got = await stub.GetModel(model_pb2.GetModelRequest(name="models/tiny"))
    encoded = await stub.EncodeText(model_pb2.EncodeTextRequest(model="models/tiny", text="aéßb"))

    assert list(listed.models) == [from_model(MODEL)]
    assert got.model == from_model(MODEL)
    assert encoded == model_pb2.EncodeTextResponse(
        ids=[0, 2, 1], unknown_characters=[model_pb2.UnknownCharacter(character="é", index=1)]
    )


async def test_a_models_version_is_a_model(served):
    """What a session says of its model can be got and encodes texts; another version is not found."""
    stub, name = served.models, SESSION.model
    assert (await stub.GetModel(model_pb2.GetModelRequest(name=name))).model.name == "models/tiny"
    assert (await stub.EncodeText(model_pb2.EncodeTextRequest(model=name, text="a"))).ids == [0]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetModel(model_pb2.GetModelRequest(name="models/tiny/versions/2"))

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_models_come_page_by_page(serve):
    """In the order of their names, as many as asked for, until there is no token; another list's token is refused."""
    models = [replace(MODEL, name=name) for name in ("b", "a", "c")]
    async with serve(models=models) as served:
        pages: list[list[str]] = []
        token = ""
        while not pages or token:
            request = model_pb2.ListModelsRequest(page_size=2, page_token=token)
            answer = await served.models.ListModels(request)
            pages.append([model.name for model in answer.models])
            token = answer.next_page_token
        for wrong in (
            model_pb2.ListModelsRequest(page_size=-1),
            model_pb2.ListModelsRequest(page_token=PageToken.encode("a", Filter().scope)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.models.ListModels(wrong)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        everything = await served.models.ListModels(model_pb2.ListModelsRequest(page_size=2**31 - 1))

    assert pages == [["models/a", "models/b"], ["models/c"]]
    assert (len(everything.models), everything.next_page_token) == (3, "")


async def test_a_text_to_encode_has_the_length_of_a_prompt(served):
    """EncodeText keeps the limit that the model reports."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.models.EncodeText(model_pb2.EncodeTextRequest(model="models/tiny", text="a" * 1001))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_unary_generation_calls_reach_the_domain(served):
    """Append, Score and Cancel convert, call and convert back."""
    stub = served.generation
    appended = await stub.Append(generation_pb2.AppendRequest(session="sessions/abcd", text="x"))
    scored = await stub.Score(generation_pb2.ScoreRequest(model="models/tiny", text="x"))
    cancelled = await stub.Cancel(generation_pb2.CancelRequest(session="sessions/abcd"))
    await stub.Cancel(generation_pb2.CancelRequest(session="sessions/abcd", position=0, request_id=REQUEST_ID))

    assert (appended.session, len(appended.details)) == (from_session(SESSION), 1)
    assert (scored.log_probability, scored.scored_count) == (-1.0, 2)
    assert cancelled.session == from_session(SESSION)
    assert served.turns.calls == [
        domain.AppendRequest("abcd", "x"),
        domain.ScoreRequest(domain.Target(model="tiny"), "x"),
        ("abcd", None, b""),
        ("abcd", 0, RAW_ID),
    ]


async def test_a_stream_is_the_domains_events(served):
    """Generate sends every event, in order, and then ends with OK."""
    call = served.generation.Generate(generation_pb2.GenerateRequest(model="models/tiny"))

    assert [event async for event in call] == [from_generated([event]) for event in (STARTED, CHUNK, FINISHED)]
    assert await call.code() is grpc.StatusCode.OK
    assert served.turns.calls[0].time_left is None


async def test_the_deadline_reaches_the_domain(served):
    """A caller's deadline arrives as seconds left."""
    call = served.generation.Generate(generation_pb2.GenerateRequest(model="models/tiny"), timeout=60)
    await call.read()

    assert 0 < served.turns.calls[0].time_left <= 61  # gRPC rounds a deadline up


@pytest.mark.parametrize("is_flooding", [False, True], ids=["waiting", "blocked on a reader"])
async def test_a_cancelled_call_closes_the_turn(served, is_flooding):
    """A cancel reaches the domain at once, whether the turn waits for a character or for its reader."""
    served.turns.is_endless, served.turns.is_flooding = True, is_flooding
    call = served.generation.Generate(generation_pb2.GenerateRequest(model="models/tiny"))
    await call.read()
    call.cancel()
    await served.turns.closed.wait()

    assert served.turns.num_open == 0


async def test_a_lost_connection_closes_the_turn(served):
    """A caller that goes away without a word frees its turn."""
    served.turns.is_endless = True
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        call = GenerationServiceStub(channel).Generate(generation_pb2.GenerateRequest(model="models/tiny"))
        await call.read()
    await served.turns.closed.wait()

    assert served.turns.num_open == 0


async def test_a_passed_deadline_closes_the_turn(served):
    """A turn does not outlive its caller's deadline, even if the domain does not look at it."""
    served.turns.is_endless = True
    call = served.generation.Generate(generation_pb2.GenerateRequest(model="models/tiny"), timeout=0.05)
    await served.turns.closed.wait()

    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancelling_at_any_moment_leaves_nothing_open(served, log):
    """Streams cancelled before, while and after they begin are all closed, and none is a fault."""
    served.turns.is_flooding = True
    for delay in range(100):
        call = served.generation.Generate(generation_pb2.GenerateRequest(model="models/tiny"))
        for _ in range(delay):
            await asyncio.sleep(0)
        call.cancel()
    served.turns.is_flooding = False
    while served.turns.num_open:
        served.turns.closed.clear()
        await served.turns.closed.wait()

    assert [line for line in log() if line["level"] == "error"] == []


async def test_chats_are_counted(serve):
    """One chat more than allowed is refused at once with its reason; one that ended makes room."""
    async with serve(max_streams=1) as served:
        served.turns.is_endless = True
        turn = generation_pb2.ChatRequest(turn=generation_pb2.GenerateRequest(model="models/tiny"))
        first = served.generation.Chat()
        await first.write(turn)
        await first.read()
        second = served.generation.Chat()
        await second.write(turn)

        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await second.details() == "the server has reached its limit of 1 streams; try again in 1 s"

        first.cancel()
        await served.turns.closed.wait()
        third = served.generation.Chat()
        await third.write(turn)

        assert (await third.read()).HasField("started")
        third.cancel()
