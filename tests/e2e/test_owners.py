"""Whose a session is, on every method of the contract: another principal's is as unknown as one that never was."""

import contextlib
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elman.v1 import generation_pb2, inspection_pb2, model_pb2, session_pb2
from elman_client import Client, InvalidArgumentError
from tests.certificates import token_digest
from tests.e2e.raw_http2 import RawCall
from tests.server_process import PATIENCE, ServerProcess

METHODS: Final = {
    method.full_name: method
    for module in (generation_pb2, inspection_pb2, model_pb2, session_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
SECRET: Final = "sssssecretsssss"
TARGET: Final = "TARGET"  # stands for the id of a session
HERS: Final = "alices-own"
NEVER: Final = "never-made"
REQUEST_ID: Final = str(uuid.uuid4())
ALICE, BOB = secrets.token_hex(32), secrets.token_hex(32)
_ALWAYS: Final = ("name", "session", "session_id", "turn", "stopping", "max_chars")  # a target, and an end
Outcome = tuple[str, str, str, tuple[bytes, ...]]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@dataclass(frozen=True)
class Scene:
    """A server on which Alice has a session, and everything about it that Bob could have got hold of."""

    address: str
    snapshot: bytes
    page_token: str

    def call(self, token: str, method: MethodDescriptor, request: Message) -> Outcome:
        """Make a call; return code, sentence, reason and answers."""
        service, _, name = method.full_name.rpartition(".")
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = channel.stream_stream(f"/{service}/{name}")
            call = stub(
                iter([request.SerializeToString()]), metadata=[("authorization", f"Bearer {token}")], timeout=PATIENCE
            )
            answers = []
            with contextlib.suppress(grpc.RpcError):
                answers += list(call)
            trailers = dict(call.trailing_metadata())
            reason = ErrorInfo()
            for detail in Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
                if detail.Is(ErrorInfo.DESCRIPTOR):
                    detail.Unpack(reason)
            return call.code().name, call.details(), reason.reason, tuple(answers)


@pytest.fixture(scope="module")
def scene(lstm, tmp_path_factory) -> Iterator[Scene]:
    """A server with two principals; one has a session with a turn."""
    access = tmp_path_factory.mktemp("access") / "access.toml"
    access.write_text(
        f'[principals.alice]\ntokens = ["{token_digest(ALICE)}"]\n[principals.bob]\ntokens = ["{token_digest(BOB)}"]\n'
    )
    with ServerProcess(lstm, "--access", str(access)) as server, Client(server.address, token=ALICE) as alice:
        session = alice.create_session("lstm", session_id=HERS, labels={"whose": SECRET})
        alice.create_session("lstm", session_id="alices-other")
        session.append(SECRET)
        turn = generation_pb2.GenerateRequest(session=session.name, prompt="x", request_id=REQUEST_ID)
        turn.stopping.max_chars = 5
        raw = session_pb2.ListSessionsRequest(page_size=1)
        scene = Scene(server.address, session.export(), "")
        assert scene.call(ALICE, METHODS["elman.v1.GenerationService.Generate"], turn)[0] == "OK"
        (listed,) = scene.call(ALICE, METHODS["elman.v1.SessionService.ListSessions"], raw)[3]
        token = session_pb2.ListSessionsResponse.FromString(listed).next_page_token
        yield Scene(server.address, session.export(), token)


def test_every_method_needs_a_token(scene: Scene) -> None:
    """Without one, with an unknown one, or with two schemes at once, each method says the same."""
    for method in METHODS.values():
        for token in ("", "wrong", f"{ALICE[:-1]}x", f"{ALICE} {BOB}"):
            code, _, reason, answers = scene.call(token, method, GetMessageClass(method.input_type)())
            assert (method.name, code, reason, answers) == (method.name, "UNAUTHENTICATED", "UNAUTHENTICATED", ())


@pytest.mark.parametrize("form", ["{}\0", "\0{}"], ids=["after", "before"])
def test_a_token_with_nul_opens_nothing(scene: Scene, form: str) -> None:
    """A byte that no library would send makes no token of the one before it; the server answers, and serves on."""
    request = generation_pb2.GenerateRequest(model="models/lstm", prompt=SECRET)
    authorization = f"Bearer {form.format(ALICE)}"
    with RawCall(scene.address, request.SerializeToString(), authorization=authorization) as call:
        answer = b""
        while b"grpc-message" not in answer and (piece := call.read(4096)):
            answer += piece
    assert b"grpc-status\x0216" in answer  # UNAUTHENTICATED
    assert scene.call(ALICE, METHODS["elman.v1.ModelService.ListModels"], model_pb2.ListModelsRequest())[0] == "OK"


def test_a_token_of_a_megabyte_is_refused(scene: Scene) -> None:
    """The headers of a call are bounded by gRPC itself; the server serves on."""
    method = METHODS["elman.v1.ModelService.ListModels"]
    code = scene.call("x" * (1 << 20), method, model_pb2.ListModelsRequest())[0]
    assert code == "RESOURCE_EXHAUSTED"
    assert scene.call(ALICE, method, model_pb2.ListModelsRequest())[0] == "OK"


def test_anothers_snapshot_is_refused(scene: Scene) -> None:
    """What Alice exported is no snapshot for Bob, and makes no session; it is one for her."""
    with Client(scene.address, token=BOB) as bob, Client(scene.address, token=ALICE) as alice:
        with pytest.raises(InvalidArgumentError, match="signed with another key, or is not yours"):
            bob.import_session(scene.snapshot)
        assert list(bob.list_sessions()) == []
        alice.import_session(scene.snapshot).delete()


def test_a_wrong_token_teaches_nothing(scene: Scene) -> None:
    """One that is nearly right, or stands in the file, gets the same answer as one that is nothing."""
    method = METHODS["elman.v1.SessionService.GetSession"]
    request = session_pb2.GetSessionRequest(name=f"sessions/{HERS}")
    wrong = (secrets.token_hex(32), f"{ALICE[:-1]}x", ALICE[:-1], f"{ALICE}0", ALICE.upper(), token_digest(ALICE))
    assert scene.call(ALICE, method, request)[0] == "OK"
    assert len({scene.call(token, method, request) for token in wrong}) == 1


@pytest.mark.parametrize("name", METHODS)
def test_another_principals_session_is_unknown(scene: Scene, name: str) -> None:
    """Whatever Bob asks about Alice's session, he gets what he gets of one that never was; and it stays as it was."""
    method = METHODS[name]
    before = _hers(scene)

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(request=_messages(method.input_type, scene))
    def attack(request: Message) -> None:
        outcomes = []
        for target in (HERS, NEVER):
            outcome = scene.call(BOB, method, _aimed(request, target))
            outcomes.append(_without(outcome, target))
            assert not any(SECRET.encode() in answer for answer in outcome[3])
            assert SECRET not in outcome[1]
            assert "~" not in outcome[1]
            _clear(scene)
        assert outcomes[0][0] not in {"INTERNAL", "UNKNOWN", "DATA_LOSS"}
        assert outcomes[0] == outcomes[1]

    attack()
    assert _hers(scene) == before


def test_two_principals_may_use_one_id(scene: Scene) -> None:
    """Each has a session of that name; what one does, the other does not see."""
    with Client(scene.address, token=BOB) as bob, Client(scene.address, token=ALICE) as alice:
        his = bob.create_session("lstm", session_id=HERS)
        his.append("his")

        assert (his.info.position, bob.get_session(HERS).transcript().text) == (3, "his")
        assert SECRET in alice.get_session(HERS).transcript().text
        assert [session.name for session in bob.list_sessions()] == [f"sessions/{HERS}"]
        fork = his.fork()[0]
        assert fork.info.forked_from is not None
        assert fork.info.forked_from.name == f"sessions/{HERS}"
        restored = bob.import_session(his.export())
        assert restored.transcript().text == "his"
        assert "/" not in restored.name.removeprefix("sessions/")
    _clear(scene)
    assert SECRET.encode() in _hers(scene)[1][3][0]


def _hers(scene: Scene) -> tuple[Outcome, Outcome]:
    """Return all that Alice sees of her session."""
    name = f"sessions/{HERS}"
    get, read = (METHODS[f"elman.v1.SessionService.{name}"] for name in ("GetSession", "GetTranscript"))
    seen = (
        scene.call(ALICE, get, session_pb2.GetSessionRequest(name=name)),
        scene.call(ALICE, read, session_pb2.GetTranscriptRequest(name=name)),
    )
    assert [outcome[0] for outcome in seen] == ["OK", "OK"]
    return seen


def _clear(scene: Scene) -> None:
    """Delete all that Bob has."""
    delete = METHODS["elman.v1.SessionService.DeleteSessions"]
    assert scene.call(BOB, delete, session_pb2.DeleteSessionsRequest(filter="*"))[0] == "OK"


def _without(outcome: Outcome, target: str) -> Outcome:
    """Return an outcome without what may differ: the id, and answers, which have times and etags in them."""
    code, sentence, reason, answers = outcome
    return code, sentence.replace(target, TARGET), reason, (b"",) * len(answers) if code != "OK" else ()


def _aimed(request: Message, target: str) -> Message:
    """Return a request with the id of a session in each place that was left for one."""
    data = request.SerializeToString().replace(TARGET.encode().ljust(len(HERS), b"-"), target.encode())
    return type(request).FromString(data)


def _messages(kind: Descriptor, scene: Scene, depth: int = 0) -> st.SearchStrategy[Message]:
    """Return requests of a kind; what names a session names the target."""
    chosen = {field.name: _values(field, scene, depth) for field in kind.fields if not _is_deep(field, depth)}
    always = {name: chosen.pop(name) for name in _ALWAYS if name in chosen}

    def build(values: dict[str, Any]) -> Message:
        message = GetMessageClass(kind)()
        for name, value in values.items():
            field = kind.fields_by_name[name]
            target = getattr(message, name)
            if field.message_type and field.message_type.GetOptions().map_entry:
                target.update(value)
            elif field.is_repeated:
                target.extend(value)
            elif field.message_type:
                target.CopyFrom(value)
            else:
                setattr(message, name, value)
        return message

    return st.fixed_dictionaries(always, optional=chosen).map(build)


def _is_deep(field: FieldDescriptor, depth: int) -> bool:
    return depth > 1 and field.message_type is not None


def _values(field: FieldDescriptor, scene: Scene, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type and field.message_type.GetOptions().map_entry:
        return st.just({"whose": "bob"})
    one = _value(field, scene, depth)
    return st.lists(one, max_size=2) if field.is_repeated else one


def _value(field: FieldDescriptor, scene: Scene, depth: int) -> st.SearchStrategy[Any]:
    target = TARGET.ljust(len(HERS), "-")
    if field.name in {"name", "session"} and field.cpp_type == field.CPPTYPE_STRING:
        is_model = field.containing_type is model_pb2.GetModelRequest.DESCRIPTOR
        return st.just("models/lstm" if is_model else f"sessions/{target}")
    pools: dict[str, list[Any]] = {
        "session_id": [target],
        "model": ["models/lstm"],
        "page_token": ["", scene.page_token],
        "request_id": [REQUEST_ID, ""],
        "snapshot": [scene.snapshot, b"x"],
        "filter": ["*", f'labels.whose = "{SECRET}"'],
        "etag": ["", "1"],
        "prompt": ["x"],
        "text": ["x"],
        "seconds": [1, 60],
        "nanos": [0],
    }
    if field.name in pools:
        return st.sampled_from(pools[field.name])
    kinds: dict[int, st.SearchStrategy[Any]] = {
        FieldDescriptor.CPPTYPE_STRING: st.sampled_from(["", "x"]),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(0, 1, width=32),
        FieldDescriptor.CPPTYPE_FLOAT: st.floats(0, 1, width=32),
        FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 2),
    }
    if field.message_type:
        return _messages(field.message_type, scene, depth + 1)
    return kinds.get(field.cpp_type, st.integers(0, 20))
