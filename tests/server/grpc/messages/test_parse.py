import asyncio
import uuid
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from elman.v1.generation_pb2 import (
    ON_ABORT_ROLLBACK,
    AppendRequest,
    Detail,
    GenerateRequest,
    ResumeRequest,
    ScoreRequest,
    Stopping,
    UnknownCharacters,
)
from elman.v1.sampling_pb2 import LogitBias, Sampling
from elman.v1.session_pb2 import (
    CreateSessionRequest,
    ForkSessionRequest,
    ImportSessionRequest,
    Session,
    UpdateSessionRequest,
)
from elman_server.domain import requests as domain
from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.requests import Detail as DomainDetail
from elman_server.domain.vocabulary import Unknown
from elman_server.grpc.messages import parse
from elman_server.grpc.messages.parse import (
    to_append,
    to_changes,
    to_creation,
    to_expiration,
    to_generate,
    to_resume,
    to_score,
)
from elman_server.sessions.session import Expiration, LabelChange


def test_unset_is_told_from_zero():
    """Optional numbers that are unset stay None; those that are 0 stay 0."""
    sampling = Sampling(temperature=0, top_k=0, top_p=0, min_p=0, seed=0, repetition_penalty=0, repetition_window=0)
    zeros = to_generate(
        GenerateRequest(model="models/tiny", sampling=sampling, stopping=Stopping(max_chars=0)), time_left=None
    )
    unset = to_generate(GenerateRequest(model="models/tiny"), time_left=None)

    assert unset == domain.GenerateRequest(target=domain.Target(model="tiny"))
    assert zeros.stopping == domain.StoppingRequest(max_chars=0)
    assert zeros.sampling == domain.SamplingRequest(
        temperature=0, top_k=0, top_p=0, min_p=0, seed=0, repetition_penalty=0, repetition_window=0
    )


def test_generate_is_read_whole():
    """Every field of a Generate arrives."""
    request = GenerateRequest(
        session="sessions/abcd",
        prompt="Hi",
        sampling=Sampling(
            logit_bias=[LogitBias(character="a", bias=-1.5)], allowed_characters="ab", banned_characters="c", seed=7
        ),
        stopping=Stopping(max_chars=5, stop_strings=["x", "yz"], include_stop=True),
        etag="1f",
        on_abort=ON_ABORT_ROLLBACK,
        detail=Detail(log_probability=True, top_n=3),
        unknown_characters=UnknownCharacters(skip=True),
        chunk_chars=1,
        request_id="00000000-0000-4000-8000-0000000000AF",
    )

    assert to_generate(request, time_left=2.5) == domain.GenerateRequest(
        target=domain.Target(session="abcd"),
        prompt="Hi",
        sampling=domain.SamplingRequest(
            logit_bias=(("a", -1.5),), allowed_characters="ab", banned_characters="c", seed=7
        ),
        stopping=domain.StoppingRequest(5, ("x", "yz"), include_stop=True),
        etag="1f",
        rollback=True,
        detail=DomainDetail(log_probability=True, top_n=3),
        unknown=Unknown(skip=True),
        chunk_chars=1,
        time_left=2.5,
        request_id=bytes.fromhex("000000000000400080000000000000af"),
    )


def test_resume_is_read_whole():
    """Position 0 is distinct from no position; the id is required and has to be a UUID."""
    request = ResumeRequest(session="sessions/abcd", request_id="00000000-0000-4000-8000-0000000000af", position=0)
    expected = domain.ResumeRequest("abcd", bytes.fromhex("000000000000400080000000000000af"), 0, 2.5)
    assert to_resume(request, 2.5) == expected
    request.ClearField("position")
    assert to_resume(request, None).position is None
    for wrong in (
        "",
        "x",
        "0" * 32,
        "00000000-0000-4000-8000-0000000000af\n",
        "{00000000-0000-4000-8000-0000000000af}",
    ):
        with pytest.raises(InvalidFieldError) as refused:
            to_resume(ResumeRequest(session="sessions/abcd", request_id=wrong), None)
        assert refused.value.field == "request_id"


def test_append_and_score_are_read_whole():
    """Every field of an Append and a Score arrives."""
    replace = UnknownCharacters(replace_with="?")
    append = AppendRequest(
        session="sessions/abcd", text="x", etag="1", detail=Detail(top_n=1), unknown_characters=replace
    )
    reject = UnknownCharacters(reject=True)
    score = ScoreRequest(model="models/tiny", text="x", top_n=2, unknown_characters=reject, read_out="mood")

    assert to_append(append) == domain.AppendRequest(
        "abcd", "x", etag="1", detail=DomainDetail(top_n=1), unknown=Unknown(replace_with="?")
    )
    assert to_score(score) == domain.ScoreRequest(domain.Target(model="tiny"), "x", top_n=2, read_out="mood")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": ""}, "model"),
        ({"session": ""}, "session"),
        ({"session": "models/tiny"}, "session"),
        ({"on_abort": 9}, "on_abort"),
        ({"chunk_chars": -1}, "chunk_chars"),
        ({"unknown_characters": UnknownCharacters(reject=False)}, "unknown_characters.reject"),
        ({"unknown_characters": UnknownCharacters(skip=False)}, "unknown_characters.skip"),
        ({"unknown_characters": UnknownCharacters(replace_with="")}, "unknown_characters.replace_with"),
        ({"unknown_characters": UnknownCharacters(replace_with="ab")}, "unknown_characters.replace_with"),
    ],
)
def test_what_the_wire_can_hold_and_we_cannot_is_refused(changes: dict[str, Any], field: str):
    """Unknown enum numbers, false choices and wrong names are refused with their field."""
    with pytest.raises(InvalidFieldError) as caught:
        to_generate(GenerateRequest(**{"model": "models/tiny", **changes}), time_left=None)

    assert caught.value.field == field


def test_a_model_may_have_its_version():
    """What a session says of its model is a model for Generate and Score, too."""
    model, target = "models/tiny/versions/2", domain.Target(model="tiny", version="2")

    assert to_generate(GenerateRequest(model=model), time_left=None).target == target
    assert to_score(ScoreRequest(model=model, text="x")).target == target


REQUEST_ID = "00000000-0000-4000-8000-0000000000af"


@pytest.mark.parametrize(
    ("request_", "digest"),
    [
        (CreateSessionRequest(model="models/tiny"), "3947d9421eae7982585b04b95d55c09b"),
        (CreateSessionRequest(model="models/tiny", seed=0), "ae24c486cb538d1dbc8a73068806e60e"),
        (
            CreateSessionRequest(
                model="models/tiny",
                session_id="abcd",
                seed=7,
                ttl=Duration(seconds=5),
                labels={"b": "1", "a": "2"},
                initial_state="juliet",
            ),
            "83f893ac0ddca8e8d1b9f7f558fb4274",
        ),
        (
            CreateSessionRequest(model="models/tiny", expire_time=Timestamp(seconds=5)),
            "f14b03f804a0937e679e63d984955a2a",
        ),
        (ForkSessionRequest(name="sessions/abcd"), "a5255990d5ee0e0a383148b2612b18d3"),
        (ForkSessionRequest(name="sessions/abcd", position=0, count=2), "f3dbe232c88c55b11c4ba4fc0d5e909d"),
        (ImportSessionRequest(snapshot=b"snapshot"), "6ca652a1ec32bdce3d2304c3b0ef6503"),
        (ImportSessionRequest(snapshot=b"other", session_id="abcd"), "08f7128c4c2cb323236480b527435dec"),
    ],
)
def test_the_digests_of_creations_stay(request_: Any, digest: str):
    """Servers of two versions know the same request again: no field that the contract gains may change a digest."""
    assert to_creation(request_) == domain.Creation()
    request_.request_id = REQUEST_ID

    assert to_creation(request_) == domain.Creation(bytes.fromhex(REQUEST_ID.replace("-", "")), bytes.fromhex(digest))


def test_a_target_is_required():
    """A Generate on nothing is refused."""
    with pytest.raises(InvalidFieldError) as caught:
        to_generate(GenerateRequest(prompt="Hi"), time_left=None)

    assert caught.value.field == "target"


def test_expirations_are_read():
    """A ttl becomes seconds, a moment unix seconds, nothing the default."""
    ttl = CreateSessionRequest(ttl=Duration(seconds=1, nanos=500_000_000))
    moment = CreateSessionRequest(expire_time=Timestamp(seconds=1_700_000_000, nanos=250_000_000))

    assert to_expiration(ttl) == Expiration(ttl=1.5)
    assert to_expiration(moment) == Expiration(expire_time=1_700_000_000.25)
    assert to_expiration(CreateSessionRequest()) == Expiration()


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(0, 0), (-1, 0), (0, -1), (1, -1), (0, 10**9), (-1, 5), (315_576_000_001, 0), (2**63 - 1, 0)]
)
def test_other_durations_are_refused(seconds: int, nanos: int):
    """A ttl that is not positive, or no valid duration, is refused."""
    with pytest.raises(InvalidFieldError) as caught:
        to_expiration(Session(ttl=Duration(seconds=seconds, nanos=nanos)), "session.")

    assert caught.value.field == "session.ttl"


@pytest.mark.parametrize(("seconds", "nanos"), [(253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 10**9)])
def test_other_timestamps_are_refused(seconds: int, nanos: int):
    """A moment outside the years 1 to 9999, or of broken nanoseconds, is refused."""
    with pytest.raises(InvalidFieldError) as caught:
        to_expiration(CreateSessionRequest(expire_time=Timestamp(seconds=seconds, nanos=nanos)))

    assert caught.value.field == "expire_time"


def test_updates_change_what_the_mask_names():
    """Only named fields change; what else the session holds is left alone."""
    session = Session(ttl=Duration(seconds=5), labels={"a": "b"})

    everything = LabelChange({"a": "b"}, replaces_all=True)
    assert to_changes(_update(session, "labels")) == (everything, None)
    assert to_changes(_update(session, "ttl")) == (None, Expiration(ttl=5.0))
    assert to_changes(_update(session, "ttl", "labels")) == (everything, Expiration(ttl=5.0))
    assert to_changes(_update(Session(), "labels")) == (LabelChange({}, replaces_all=True), None)


def test_one_label_can_be_changed():
    """`labels.key` sets that label, or removes it where the session has no such key; `labels` has all of them."""
    session = Session(labels={"a": "b", "c": "d"})

    assert to_changes(_update(session, "labels.a")) == (LabelChange({"a": "b"}), None)
    assert to_changes(_update(session, "labels.a", "labels.x")) == (LabelChange({"a": "b", "x": None}), None)
    assert to_changes(_update(session, "labels", "labels.a"))[0] == LabelChange(dict(session.labels), replaces_all=True)
    for wrong in ("labels.", "labels.A", "labels.a.b"):
        with pytest.raises(InvalidFieldError, match="update_mask: has the key"):
            to_changes(_update(session, wrong))


def test_a_mask_may_be_missing():
    """Then what the session sets is changed; with `*` the labels, too, if there are none; nothing at all is refused."""
    ttl, labels = Session(ttl=Duration(seconds=5)), Session(labels={"a": "b"})

    assert to_changes(_update(ttl)) == (None, Expiration(ttl=5.0))
    assert to_changes(_update(labels)) == (LabelChange({"a": "b"}, replaces_all=True), None)
    assert to_changes(_update(ttl, "*")) == (LabelChange({}, replaces_all=True), Expiration(ttl=5.0))
    assert to_changes(_update(Session(), "*")) == (LabelChange({}, replaces_all=True), None)
    with pytest.raises(InvalidFieldError, match="session: sets nothing to change"):
        to_changes(_update(Session(name="sessions/abcd", seed=3)))


@pytest.mark.parametrize("paths", [["seed"], ["*", "ttl"], ["expire_time"], ["ttl", "expire_time"], ["x" * 10_000]])
def test_other_masks_are_refused(paths: list[str]):
    """A mask that names anything else, or a value that is not there, is refused."""
    with pytest.raises(InvalidFieldError) as caught:
        to_changes(_update(Session(ttl=Duration(seconds=5)), *paths))

    assert caught.value.field == "update_mask"


def _update(session: Session, *paths: str) -> UpdateSessionRequest:
    return UpdateSessionRequest(session=session, update_mask=FieldMask(paths=paths))


def test_a_creation_is_of_its_caller():
    """Equal requests of two callers, who each have a request id of their own, are told apart."""
    ids = [str(uuid.uuid4()) for _ in range(2)]
    one, other = (CreateSessionRequest(model="models/tiny", session_id="abcd", request_id=own) for own in ids)
    assert to_creation(one) == to_creation(one)
    assert to_creation(one).digest != to_creation(other).digest


async def test_a_snapshot_has_a_largest_size_and_a_time_to_come(monkeypatch):
    """Its pieces are joined; one too many is refused, and so is one that does not come."""
    monkeypatch.setattr(parse, "MAX_SNAPSHOT_BYTES", 10)

    async def pieces(number, *, ends=True):
        for _ in range(number):
            yield ImportSessionRequest(session_id="mine", snapshot=b"12345")
        if not ends:
            await asyncio.Event().wait()

    assert await parse.to_import(pieces(2)) == ImportSessionRequest(session_id="mine", snapshot=b"1234512345")
    with pytest.raises(InvalidFieldError, match="snapshot: has more than 10 bytes"):
        await parse.to_import(pieces(3))
    monkeypatch.setattr(parse, "_IMPORT_SECONDS", 0.01)
    with pytest.raises(InvalidFieldError, match="snapshot: did not come within"):
        await parse.to_import(pieces(1, ends=False))
