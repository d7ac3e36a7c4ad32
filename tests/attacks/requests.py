"""Requests of any method, made from its descriptor: one that is mostly right, and its neighbours with one odd field."""

import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st

from elman.v1 import generation_pb2, inspection_pb2, model_pb2, session_pb2

MODEL: Final = "gru"
MINE: Final = "mine"
HIDDEN: Final = "hidden"  # a session of somebody else, whose name is known
_FILES: Final = (generation_pb2, inspection_pb2, model_pb2, session_pb2, health_pb2, reflection_pb2)
METHODS: Final[list[MethodDescriptor]] = [
    method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name != "Watch"  # of health: it never ends
]
_MAX_DEPTH: Final = 3
_SESSIONS: Final = [f"sessions/{MINE}", f"sessions/{HIDDEN}", "sessions/never"]
_UUIDS: Final = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
# What a caller who means well could write there; of other fields any small value may be meant well.
_RIGHT: Final[dict[str, list[Any]]] = {
    "session": _SESSIONS,
    "model": [f"models/{MODEL}"],
    "session_id": [MINE, HIDDEN, "another"],
    "request_id": _UUIDS,
    "text": ["What is", ""],
    "prompt": ["What is", ""],
    "filter": ["*", 'state = "ACTIVE"', f'model = "models/{MODEL}"'],
    "character": ["a"],
    "max_chars": [1, 20],
    "seconds": [60],
    "nanos": [0],
    "paths": ["labels", "ttl"],
    "etag": [""],
    "temperature": [1.0, 0.0],
    "top_p": [0.9],
    "pattern": ["[a-z]"],
    "file_containing_symbol": ["elman.v1.Session"],
}
_TEXTS: Final = (
    *("", "a", "*", "é", "\0", "a" * 5000, "\U0010ffff", "\x1b[2J", 'labels.a = "', 'labels.a = "b"'),
    *("models/gru", "models/gru/versions/1", "sessions/", "sessions/a/b"),
    *_SESSIONS,
    _UUIDS[0],
)
_INTEGERS: Final = (0, 1, -1, 7, 100, 2**31 - 1, -(2**31))
_LONGS: Final = (*_INTEGERS, 2**63 - 1, -(2**63))
_DOUBLES: Final = (0.0, 1.0, -1.0, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"))
_ODD: Final[dict[int, tuple[Any, ...]]] = {
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 5, 99, -1),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, -1.0, float("nan"), float("inf")),
    FieldDescriptor.CPPTYPE_DOUBLE: _DOUBLES,
    FieldDescriptor.CPPTYPE_STRING: _TEXTS,
    FieldDescriptor.CPPTYPE_INT32: _INTEGERS,
    FieldDescriptor.CPPTYPE_INT64: _LONGS,
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**64 - 1),
}
_BYTES: Final = (b"", b"\0" * 20, b"x" * 5000)
_MANY: Final = 300  # entries of a list that is longer than it should be


class Request(NamedTuple):
    """One call: which method, and the messages that are sent to it, as bytes."""

    method: MethodDescriptor
    messages: tuple[bytes, ...]

    @property
    def path(self) -> str:
        """Where a channel finds the method."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    def __repr__(self) -> str:
        return f"{self.path} {[_shown(GetMessageClass(self.method.input_type), data) for data in self.messages]}"


_Change = Callable[[Any], None]


def around(method: MethodDescriptor, base: Message) -> list[Request]:
    """Return a request to a method, followed by all its neighbours, and one that is no message."""
    right = base.SerializeToString()
    made = [Request(method, (right,)), Request(method, (b"\xff",))]
    for change in _changes(method.input_type):
        neighbour = type(base).FromString(right)
        change(neighbour)
        odd = neighbour.SerializeToString()
        # Of a stream of requests the odd one is the second.
        made.append(Request(method, (right, odd) if method.client_streaming else (odd,)))
    return made


@functools.cache
def messages(kind: Descriptor, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return messages of a kind with some of their fields, each with a value that may be right."""
    fields = [(field, _values(field, depth)) for field in kind.fields if depth < _MAX_DEPTH or not field.message_type]

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        message = GetMessageClass(kind)()
        left_out = draw(st.integers(0, 2 ** len(fields) - 1))  # one choice for all fields: choices cost time
        for place, (field, values) in enumerate(fields):
            if not left_out >> place & 1 or field.name in {"stopping", "max_chars"}:
                _set(message, field, draw(values))
        return message

    return build()


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if _is_map(field):
        return st.sampled_from([{"a": "b"}, {}])
    if field.message_type:
        one = messages(field.message_type, depth + 1)
    elif field.name == "name":
        is_model = field.containing_type is model_pb2.GetModelRequest.DESCRIPTOR
        one = st.sampled_from(_RIGHT["model"] if is_model else _SESSIONS)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = st.sampled_from([b"", b"abcd"])
    else:
        kinds: dict[int, list[Any]] = {
            FieldDescriptor.CPPTYPE_BOOL: [False, True],
            FieldDescriptor.CPPTYPE_STRING: ["", "a"],
            FieldDescriptor.CPPTYPE_FLOAT: [1.0],
            FieldDescriptor.CPPTYPE_DOUBLE: [1.0],
        }
        one = st.sampled_from(_RIGHT.get(field.name) or kinds.get(field.cpp_type, [0, 1, 2]))
    return st.lists(one, max_size=2) if field.is_repeated else one


@functools.cache
def _changes(kind: Descriptor, depth: int = 0) -> list[_Change]:
    """Return every change of one field of a message to something odd."""
    found: list[_Change] = []
    for field in kind.fields:
        if _is_map(field):
            entries = [{text: text} for text in _TEXTS]
            found += [_setting(field, value) for value in [*entries, dict.fromkeys(map(str, range(_MANY)), "")]]
        elif field.message_type:
            found.append(functools.partial(_clear, field))
            deeper = _changes(field.message_type, depth + 1) if depth < _MAX_DEPTH else []
            found += [functools.partial(_within, field, change) for change in deeper]
        else:
            odd = _BYTES if field.type == FieldDescriptor.TYPE_BYTES else _ODD[field.cpp_type]
            found += [_setting(field, [value] if field.is_repeated else value) for value in odd]
            if field.is_repeated:
                found.append(_setting(field, [odd[1]] * _MANY))
    return found


def _setting(field: FieldDescriptor, value: Any) -> _Change:
    return lambda message: _set(message, field, value)


def _clear(field: FieldDescriptor, message: Any) -> None:
    message.ClearField(field.name)


def _within(field: FieldDescriptor, change: _Change, message: Any) -> None:
    """Change a message that is a field of another."""
    part = getattr(message, field.name)
    change(part.add() if field.is_repeated else part)


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    if _is_map(field):
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _shown(kind: type[Message], data: bytes) -> str:
    try:
        return str(kind.FromString(data))
    except DecodeError:
        return repr(data)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
