"""The end of a turn before its time, and how much of it the session keeps."""

from dataclasses import dataclass

from elman.v1 import generation_pb2 as pb
from elman_client import _types as types
from elman_client._shared import sessions, values
from elman_client._shared.fields import fill
from elman_client._shared.operation import Operation, operation


def cancel(session: str, position: int | None = None, request_id: str = "") -> Operation[types.SessionInfo]:
    """End a turn and wait until it is committed.

    Args:
        session: Its session.
        position: Where it ends; ``None``: it keeps all that the server sent.
        request_id: That of the turn; empty: whichever runs.
    """
    request = pb.CancelRequest()
    fill(request, session=session, position=position, request_id=request_id)
    return operation(
        "elman.v1.GenerationService/Cancel",
        request,
        pb.CancelResponse,
        lambda reply: values.session_info(reply.session),
        session=session,
    )


@dataclass(frozen=True)
class Left:
    """A turn that its caller left.

    Attributes:
        session: Its session.
        request_id: By which the server knows it.
        position: Up to where the caller has its text; ``None``: it has nothing, and does not know where it began.
    """

    session: str
    request_id: str
    position: int | None

    def cancel(self) -> Operation[types.SessionInfo]:
        """End it."""
        return cancel(self.session, self.position, self.request_id)

    def look(self, info: types.SessionInfo) -> Operation[types.Transcript] | None:
        """Return the call that finds out what ``cancel`` kept of it, the session is then so; ``None``: it is right."""
        if self.position is not None or info.position == 0:
            return None
        return sessions.transcript(self.session, info.position - 1, info.position)

    def cut(self, found: types.Transcript) -> Operation[types.SessionInfo] | None:
        """Return the call that takes back what the caller does not have; ``None``: nothing of the turn was kept."""
        kept = [turn for turn in found.turns if turn.request_id == self.request_id]
        return cancel(self.session, kept[-1].start, self.request_id) if kept else None
