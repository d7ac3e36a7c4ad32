"""Parses requests: messages of `elman.v1` into the domain's own types.

It checks what only messages can hold: names, masks, unset choices, unknown enum numbers. The domain checks ranges.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from elman.v1 import generation_pb2 as messages
from elman.v1.session_pb2 import ImportSessionRequest
from elman_server.domain.errors import InvalidFieldError, ValueRangeError
from elman_server.domain.owner import owner
from elman_server.domain.requests import (
    AppendRequest,
    Creation,
    Detail,
    GenerateRequest,
    ResumeRequest,
    SamplingRequest,
    ScoreRequest,
    StoppingRequest,
    StopRequest,
    Target,
    digest_of,
)
from elman_server.domain.vocabulary import REJECT, Unknown
from elman_server.grpc.messages.names import model_version, session_key
from elman_server.sessions.session import Expiration, LabelChange, check_labels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from elman.v1.inspection_pb2 import ExplainStepRequest, FindUnitsRequest, WatchStateRequest
    from elman.v1.sampling_pb2 import Sampling
    from elman.v1.session_pb2 import (
        CreateSessionRequest,
        ForkSessionRequest,
        Session,
        UpdateSessionRequest,
    )

MAX_SNAPSHOT_BYTES: Final = 1 << 26
_IMPORT_SECONDS: Final = 60.0  # for all pieces of a snapshot
_LABEL: Final = "labels."
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NANOS: Final = 10**9
_MAX_SECONDS: Final = 315_576_000_000  # google.protobuf.Duration: 10,000 years
_TIMESTAMPS: Final = range(-62_135_596_800, 253_402_300_800)  # google.protobuf.Timestamp: years 1 to 9999

_ROLLBACK: Final = {
    messages.ON_ABORT_UNSPECIFIED: False,
    messages.ON_ABORT_KEEP_PARTIAL: False,
    messages.ON_ABORT_ROLLBACK: True,
}


def to_generate(request: messages.GenerateRequest, time_left: float | None) -> GenerateRequest:
    """Return the turn that a caller asks for; `time_left` is seconds to the deadline, None without one."""
    if request.on_abort not in _ROLLBACK:
        raise InvalidFieldError("on_abort", f"is {request.on_abort}, which is not a value of OnAbort; use a named one")
    if request.chunk_chars < 0:
        raise ValueRangeError("chunk_chars", request.chunk_chars, "0", "inf", "0 or more")
    return GenerateRequest(
        target=to_target(request),
        prompt=request.prompt,
        sampling=_to_sampling(request.sampling),
        stopping=_to_stopping(request.stopping),
        etag=request.etag,
        rollback=_ROLLBACK[request.on_abort],
        detail=_to_detail(request.detail),
        unknown=to_unknown(request.unknown_characters),
        chunk_chars=request.chunk_chars,
        time_left=time_left,
        request_id=to_request_id(request.request_id),
    )


def to_resume(request: messages.ResumeRequest, time_left: float | None) -> ResumeRequest:
    """Return the turn that a caller wants to continue."""
    if not request.request_id:
        raise InvalidFieldError("request_id", "is empty; send the request_id of the Generate")
    return ResumeRequest(
        session=session_key("session", request.session),
        request_id=to_request_id(request.request_id),
        position=request.position if request.HasField("position") else None,
        time_left=time_left,
    )


def to_action(request: messages.ChatRequest, time_left: float | None) -> GenerateRequest | StopRequest:
    """Return what a caller of Chat asks for."""
    match request.WhichOneof("action"):
        case "turn":
            return to_generate(request.turn, time_left)
        case "stop":
            return StopRequest(request.stop.position if request.stop.HasField("position") else None)
        case _:
            raise InvalidFieldError("action", "is not set; send turn or stop")


def to_append(request: messages.AppendRequest) -> AppendRequest:
    """Return the turn that a caller asks for."""
    return AppendRequest(
        session=session_key("session", request.session),
        text=request.text,
        etag=request.etag,
        detail=_to_detail(request.detail),
        unknown=to_unknown(request.unknown_characters),
        request_id=to_request_id(request.request_id),
    )


def to_request_id(text: str) -> bytes:
    """Return the bytes of a UUID in its usual form; empty: none."""
    if not text:
        return b""
    if not _UUID.fullmatch(text):
        raise InvalidFieldError("request_id", f"is {text[:80]!a}; send a UUID of 32 hex digits and four hyphens")
    return uuid.UUID(text).bytes


def to_score(request: messages.ScoreRequest) -> ScoreRequest:
    """Return what a caller wants scored."""
    return ScoreRequest(
        target=to_target(request),
        text=request.text,
        top_n=request.top_n,
        unknown=to_unknown(request.unknown_characters),
        read_out=request.read_out,
    )


def to_expiration(request: CreateSessionRequest | Session, prefix: str = "") -> Expiration:
    """Return the choice in a message's `expiration`; `prefix` stands before the field's name in errors."""
    match request.WhichOneof("expiration"):
        case "ttl":
            return Expiration(ttl=_to_seconds(request.ttl, f"{prefix}ttl"))
        case "expire_time":
            return Expiration(expire_time=_to_moment(request.expire_time, f"{prefix}expire_time"))
        case _:
            return Expiration()


def to_changes(request: UpdateSessionRequest) -> tuple[LabelChange | None, Expiration | None]:
    """Return what an update changes of labels and expiration; None leaves them."""
    session = request.session
    paths = _paths(request)
    keys = sorted(path.removeprefix(_LABEL) for path in paths if path.startswith(_LABEL))
    check_labels("update_mask", dict.fromkeys(keys, ""))
    chosen = {path for path in paths if not path.startswith(_LABEL)} - {"labels"}
    if unknown := sorted(chosen - {"ttl", "expire_time"}):
        allowed = "labels, labels.key, ttl and expire_time, or * alone"
        raise InvalidFieldError("update_mask", f"names {unknown[0][:80]!a}; allowed are {allowed}")
    if chosen and chosen != {session.WhichOneof("expiration")}:
        raise InvalidFieldError("update_mask", f"names {' and '.join(sorted(chosen))}; set exactly that in session")
    labels = None
    if "labels" in paths:
        labels = LabelChange(dict(session.labels), replaces_all=True)
    elif keys:
        labels = LabelChange({key: session.labels.get(key) for key in keys})
    return labels, to_expiration(session, "session.") if chosen else None


def _paths(request: UpdateSessionRequest) -> set[str]:
    """Return what an update names, or without a mask what its session sets."""
    paths, session = set(request.update_mask.paths), request.session
    if paths and paths != {"*"}:
        return paths
    given = {name for name in ("ttl", "expire_time") if session.HasField(name)}
    if paths or session.labels:
        given.add("labels")
    if not given:
        raise InvalidFieldError("session", "sets nothing to change; set labels, ttl or expire_time")
    return given


def to_creation(request: CreateSessionRequest | ForkSessionRequest | ImportSessionRequest) -> Creation:
    """Return by what the server recognizes a request that is sent again."""
    if not request.request_id:
        return Creation(owner=owner.get())
    # With its id: two callers who choose one session id with equal requests are two callers.
    digest = digest_of({request.DESCRIPTOR.name: _set_fields(request)})
    return Creation(to_request_id(request.request_id), digest, owner=owner.get())


async def to_import(requests: AsyncIterator[ImportSessionRequest]) -> ImportSessionRequest:
    """Return a request that comes in pieces as one; all but the snapshot is in the first.

    Raises:
        InvalidFieldError: it is too large, or the pieces do not come.
    """
    whole, snapshot = ImportSessionRequest(), bytearray()
    try:
        async with asyncio.timeout(_IMPORT_SECONDS):
            async for request in requests:
                if not snapshot:
                    whole.MergeFrom(request)
                snapshot += request.snapshot
                if len(snapshot) > MAX_SNAPSHOT_BYTES:
                    raise InvalidFieldError("snapshot", f"has more than {MAX_SNAPSHOT_BYTES} bytes")
    except TimeoutError:
        raise InvalidFieldError("snapshot", f"did not come within {_IMPORT_SECONDS:g} s; send it faster") from None
    whole.snapshot = bytes(snapshot)
    return whole


def _set_fields(message: Message) -> dict[str, Any]:
    return {field.name: _plain(value) for field, value in message.ListFields()}


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return _set_fields(value)
    if isinstance(value, bytes):
        return hashlib.sha256(value).digest()
    return value if isinstance(value, str | int) else dict(value)  # the only repeated field is a map


def to_target(
    request: messages.GenerateRequest
    | messages.ScoreRequest
    | WatchStateRequest
    | ExplainStepRequest
    | FindUnitsRequest,
) -> Target:
    """Return where the state comes from."""
    match request.WhichOneof("target"):
        case "session":
            return Target(session=session_key("session", request.session))
        case "model":
            model, version = model_version("model", request.model)
            return Target(model=model, version=version)
        case _:
            raise InvalidFieldError("target", "is not set; set session or model")


def _to_sampling(sampling: Sampling) -> SamplingRequest:
    def given(name: str) -> bool:
        return sampling.HasField(name)  # type: ignore[arg-type]  # the stubs list the names as literals

    return SamplingRequest(
        logit_bias=tuple((entry.character, entry.bias) for entry in sampling.logit_bias),
        allowed_characters=sampling.allowed_characters,
        banned_characters=sampling.banned_characters,
        repetition_penalty=sampling.repetition_penalty if given("repetition_penalty") else None,
        repetition_window=sampling.repetition_window if given("repetition_window") else None,
        temperature=sampling.temperature if given("temperature") else None,
        top_k=sampling.top_k if given("top_k") else None,
        top_p=sampling.top_p if given("top_p") else None,
        min_p=sampling.min_p if given("min_p") else None,
        seed=sampling.seed if given("seed") else None,
    )


def _to_stopping(stopping: messages.Stopping) -> StoppingRequest:
    max_chars = stopping.max_chars if stopping.HasField("max_chars") else None
    return StoppingRequest(max_chars, tuple(stopping.stop_strings), stopping.include_stop)


def _to_detail(detail: messages.Detail) -> Detail:
    return Detail(log_probability=detail.log_probability, top_n=detail.top_n, effective=detail.effective)


def to_unknown(unknown: messages.UnknownCharacters) -> Unknown:
    """Return what to do with characters that are not in the vocabulary."""
    policy = unknown.WhichOneof("policy")
    if policy is None:
        return REJECT
    if policy == "replace_with":
        if len(unknown.replace_with) != 1:
            raise InvalidFieldError("unknown_characters.replace_with", "must be one character")
        return Unknown(replace_with=unknown.replace_with)
    if not getattr(unknown, policy):
        raise InvalidFieldError(f"unknown_characters.{policy}", "is false; set it to true, or set another policy")
    return Unknown(skip=policy == "skip")


def _to_seconds(duration: Duration, field: str) -> float:
    seconds, nanos = duration.seconds, duration.nanos
    # Both must have the same sign, so neither of a positive duration is below 0.
    if not (0 <= seconds <= _MAX_SECONDS and 0 <= nanos < _NANOS and (seconds or nanos)):
        raise InvalidFieldError(field, f"is {seconds} s and {nanos} ns; allowed is a valid duration above 0")
    return seconds + nanos / _NANOS


def _to_moment(timestamp: Timestamp, field: str) -> float:
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if seconds not in _TIMESTAMPS or not 0 <= nanos < _NANOS:
        raise InvalidFieldError(field, f"is {seconds} s and {nanos} ns; allowed are the years 1 to 9999")
    return seconds + nanos / _NANOS
