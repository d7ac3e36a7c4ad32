"""One call: what it sends, where to, and how its answer is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

Value = TypeVar("Value")


@dataclass(frozen=True)
class Operation(Generic[Value]):
    """One call.

    Attributes:
        path: The method's full path.
        request: The request, encoded.
        parse: An encoded answer into the client's own value.
        session: The session it is about, for the header by which a balancer keeps it in one place.
        is_safe: It may be sent again though it may have been done.
        turn_id: The request id of a turn of the session, which is busy until it ends; empty: it is no turn.
        more: Further messages of a request that is sent in pieces; None: it is one message.
        key: Its request id, for the header by which a proxy may send it again; empty: it has none.
        after: Of a stream whose answers are cut by chance: the call that continues after one of them.
    """

    path: str
    request: bytes
    parse: Callable[[bytes], Value]
    session: str = ""
    is_safe: bool = True
    turn_id: str = ""
    key: str = ""
    after: Callable[[Value], "Operation[Value]"] | None = None
    more: tuple[bytes, ...] | None = None


def operation(
    path: str,
    request: Message,
    reply: type[Message],
    convert: Callable[[Any], Value],
    *,
    session: str = "",
    is_safe: bool = True,
    turn_id: str = "",
) -> Operation[Value]:
    """Return the call of ``path`` that answers with ``convert(reply)``."""
    return Operation(
        path=f"/{path}",
        request=request.SerializeToString(),
        parse=lambda encoded: convert(reply.FromString(encoded)),
        session=session,
        is_safe=is_safe,
        turn_id=turn_id,
        key=getattr(request, "request_id", ""),
    )
