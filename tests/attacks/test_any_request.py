"""Random requests to every method, made from the descriptors: each is answered, and none is the server's own fault."""

import random
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from elman.v1 import generation_pb2, model_pb2, session_pb2
from elman.v1.session_pb2_grpc import SessionServiceStub
from tests.attacks.canary import Canary
from tests.server_process import ServerProcess

_NUM_REQUESTS: Final = 25  # of each method
_PATIENCE: Final = 60  # a busy machine
_FILES: Final = (generation_pb2, model_pb2, session_pb2)
_METHODS: Final[list[MethodDescriptor]] = [
    method for file in _FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
_FAULTS: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
_TEXTS: Final = (
    *("", "a", "sessions/mine", "sessions/other", "models/gru", "models/gru/versions/1", "*", "é", "\0", "a" * 5000),
    *("00000000-0000-4000-8000-000000000001", 'state = "ACTIVE"', "labels.a"),
)
_INTEGERS: Final = (0, 1, 2, 7, 20, 100, -1, 2**31 - 1)
_DOUBLES: Final = (0.0, 1.0, 0.5, -1.0, 1e300, float("nan"), float("inf"))
_VALUES: Final[dict[int, tuple[Any, ...]]] = {
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 9),
    FieldDescriptor.CPPTYPE_FLOAT: _DOUBLES,
    FieldDescriptor.CPPTYPE_DOUBLE: _DOUBLES,
    FieldDescriptor.CPPTYPE_STRING: _TEXTS,
}


def _fill(message: Any, chance: random.Random, depth: int = 0) -> Any:
    """Set some fields of a message to values of their kinds, usual ones and odd ones."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.4 or depth > 3:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)[chance.choice(_TEXTS)] = chance.choice(_TEXTS)
        elif field.message_type is not None:
            many = getattr(message, field.name)
            _fill(many.add() if field.is_repeated else many, chance, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(_value(field, chance) for _ in range(chance.choice((1, 2, 40))))
        else:
            setattr(message, field.name, _value(field, chance))
    return message


def _value(field: FieldDescriptor, chance: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(20)
    if field.cpp_type in {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}:
        return abs(chance.choice(_INTEGERS))
    return chance.choice(_VALUES.get(field.cpp_type, _INTEGERS))


@pytest.fixture(scope="module", params=["memory:", "sqlite:"])
def process(models, request, tmp_path_factory) -> Iterator[ServerProcess]:
    """A server with each of two stores."""
    store = request.param if request.param == "memory:" else f"sqlite:{tmp_path_factory.mktemp('store') / 's.db'}"
    with ServerProcess(models, "--store", store, "--max-chars", "400", "--max-prompt-chars", "10000") as process:
        yield process


def test_every_request_is_answered(process: ServerProcess):
    """No INTERNAL, no UNKNOWN, none without an end; a canary beside them gets its text, and the log has no error."""
    chance = random.Random(1)
    before = process.rss()
    with Canary(process.address), grpc.insecure_channel(process.address) as channel:
        SessionServiceStub(channel).CreateSession(
            session_pb2.CreateSessionRequest(model="models/gru", session_id="mine"), timeout=_PATIENCE
        )
        for _ in range(_NUM_REQUESTS):
            for method in chance.sample(_METHODS, len(_METHODS)):
                kind = GetMessageClass(method.input_type)
                requests = [
                    _fill(kind(), chance) for _ in range(chance.choice((1, 1, 1, 2)) if method.client_streaming else 1)
                ]
                path = f"/{method.containing_service.full_name}/{method.name}"
                call: Any = channel.stream_stream(path)
                code = _code(call(iter([each.SerializeToString() for each in requests]), timeout=_PATIENCE))
                assert code not in _FAULTS, (path, requests)
    assert '"level": "error"' not in process.log.text
    assert process.rss() - before < 100e6


def _code(call: Any) -> grpc.StatusCode:
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    code: grpc.StatusCode = call.code()
    return code
