"""Calls about sessions."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

from elman.v1 import session_pb2 as pb
from elman_client import _types as types
from elman_client._shared import values
from elman_client._shared.fields import expiration, fill
from elman_client._shared.names import model_name, session_name
from elman_client._shared.operation import Operation, operation

_PIECE_BYTES = 1 << 16  # of a snapshot in one message


def create(
    *,
    model: str,
    session_id: str | None,
    seed: int | None,
    ttl: timedelta | None,
    expire_time: datetime | None,
    labels: Mapping[str, str] | None,
    initial_state: str | None,
) -> Operation[types.SessionInfo]:
    """Create a session."""
    request = pb.CreateSessionRequest()
    fill(
        request,
        model=model_name(model),
        session_id=session_id,
        seed=seed,
        labels=labels,
        initial_state=initial_state,
        request_id=str(uuid4()),
        **expiration(ttl, expire_time),
    )
    return operation(
        "elman.v1.SessionService/CreateSession",
        request,
        pb.CreateSessionResponse,
        lambda reply: values.session_info(reply.session),
        session=session_name(session_id) if session_id else "",
    )


def get(name: str) -> Operation[types.SessionInfo]:
    """Return one session."""
    request = pb.GetSessionRequest()
    fill(request, name=name)
    return operation(
        "elman.v1.SessionService/GetSession",
        request,
        pb.GetSessionResponse,
        lambda reply: values.session_info(reply.session),
        session=name,
    )


def page(filter_: str, page_size: int, page_token: str) -> Operation[tuple[tuple[types.SessionInfo, ...], str]]:
    """Return one page of sessions and the next page's token, empty at the end."""
    request = pb.ListSessionsRequest()
    fill(request, filter=filter_, page_size=page_size, page_token=page_token)
    return operation(
        "elman.v1.SessionService/ListSessions",
        request,
        pb.ListSessionsResponse,
        lambda reply: (tuple(map(values.session_info, reply.sessions)), reply.next_page_token),
    )


def update(
    name: str,
    labels: Mapping[str, str] | None,
    ttl: timedelta | None,
    expire_time: datetime | None,
    etag: str | None,
) -> Operation[types.SessionInfo]:
    """Change what is given."""
    request = pb.UpdateSessionRequest()
    changes = {"labels": labels, **expiration(ttl, expire_time)}
    fill(request.session, name=name, etag=etag, **changes)
    request.update_mask.paths.extend(f for f, value in changes.items() if value is not None)
    return operation(
        "elman.v1.SessionService/UpdateSession",
        request,
        pb.UpdateSessionResponse,
        lambda reply: values.session_info(reply.session),
        session=name,
        is_safe=etag is None,
    )


def delete(name: str, etag: str | None) -> Operation[None]:
    """Delete a session."""
    request = pb.DeleteSessionRequest()
    fill(request, name=name, etag=etag)
    return operation(
        "elman.v1.SessionService/DeleteSession",
        request,
        pb.DeleteSessionResponse,
        lambda _reply: None,
        session=name,
        is_safe=False,
    )


def transcript(name: str, start: int, end: int | None) -> Operation[types.Transcript]:
    """Return what a session has read and written."""
    request = pb.GetTranscriptRequest()
    fill(request, name=name, start=start, end=end)
    return operation(
        "elman.v1.SessionService/GetTranscript",
        request,
        pb.GetTranscriptResponse,
        values.transcript,
        session=name,
    )


def fork(name: str, position: int | None, count: int) -> Operation[tuple[types.SessionInfo, ...]]:
    """Make sessions that are what this one was at a position."""
    request = pb.ForkSessionRequest()
    fill(request, name=name, position=position, count=count, request_id=str(uuid4()))
    return operation(
        "elman.v1.SessionService/ForkSession",
        request,
        pb.ForkSessionResponse,
        lambda reply: tuple(map(values.session_info, reply.sessions)),
        session=name,
    )


def rewind(name: str, position: int, etag: str | None) -> Operation[types.SessionInfo]:
    """Return a session to a position."""
    request = pb.RewindSessionRequest()
    fill(request, name=name, position=position, etag=etag)
    return operation(
        "elman.v1.SessionService/RewindSession",
        request,
        pb.RewindSessionResponse,
        lambda reply: values.session_info(reply.session),
        session=name,
        is_safe=etag is None,
    )


def export(name: str) -> Operation[bytes]:
    """Return a session as a snapshot; the answer is a stream of its pieces."""
    request = pb.ExportSessionRequest()
    fill(request, name=name)
    return operation(
        "elman.v1.SessionService/ExportSession",
        request,
        pb.ExportSessionResponse,
        lambda reply: bytes(reply.snapshot),
        session=name,
    )


def import_(snapshot: bytes, session_id: str | None) -> Operation[types.SessionInfo]:
    """Create a session from a snapshot, which is sent in pieces."""
    request = pb.ImportSessionRequest()
    fill(request, snapshot=snapshot, session_id=session_id, request_id=str(uuid4()))
    request.snapshot = snapshot[:_PIECE_BYTES]
    pieces = (snapshot[at : at + _PIECE_BYTES] for at in range(_PIECE_BYTES, len(snapshot), _PIECE_BYTES))
    whole = operation(
        "elman.v1.SessionService/ImportSession",
        request,
        pb.ImportSessionResponse,
        lambda reply: values.session_info(reply.session),
        session=session_name(session_id) if session_id else "",
    )
    return replace(whole, more=tuple(pb.ImportSessionRequest(snapshot=piece).SerializeToString() for piece in pieces))


def replay(name: str) -> Operation[types.ReplayedTurn]:
    """Rerun a session's turns; the answer is a stream."""
    request = pb.ReplaySessionRequest()
    fill(request, name=name)
    return operation(
        "elman.v1.SessionService/ReplaySession",
        request,
        pb.ReplaySessionResponse,
        values.replayed,
        session=name,
    )
