"""Calls as any client in the world may send them: plain stubs, raw bytes, and what a refusal says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from elman.v1 import generation_pb2 as messages
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.model_pb2_grpc import ModelServiceStub
from elman.v1.session_pb2 import CreateSessionRequest
from elman.v1.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from elman_client import Client, Session

_CHANNEL_OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    ("grpc.http2.bdp_probe", 0),  # a flow-control window that stays at 64 KiB
]
GENERATE: Final = "/elman.v1.GenerationService/Generate"
PATIENCE: Final = 100  # seconds of every call's deadline, so that no test hangs
PROMPT: Final = "What is the city but the people?\n"


@dataclass(frozen=True)
class Refusal:
    """How a call failed, as a script would look at it.

    Attributes:
        fields: Names of the fields that are wrong.
        retry: Whether the server says when to try again.
    """

    code: str
    reason: str = ""
    fields: tuple[str, ...] = ()
    retry: bool = False


class Wire:
    """A channel of its own to a server, and the plain stubs on it."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, _CHANNEL_OPTIONS)
        self.generation = GenerationServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)
        self.sessions = SessionServiceStub(self.channel)

    def session(self, model: str = "gru", **options: Any) -> str:
        """Create a session; return its name."""
        request = CreateSessionRequest(model=f"models/{model}", **options)
        return self.sessions.CreateSession(request, timeout=PATIENCE).session.name

    def generate(self, request: messages.GenerateRequest) -> list[messages.GenerateResponse]:
        """Read a turn to its end."""
        return list(self.generation.Generate(request, timeout=PATIENCE))

    def raw(self, method: str, data: bytes) -> list[bytes]:
        """Send bytes as they are; return the answers' bytes."""
        call = cast("Any", self.channel.unary_stream(method))
        return list(call(data, timeout=PATIENCE))


@contextmanager
def wire_to(address: str) -> Iterator[Wire]:
    """Open a channel, and close it."""
    wire = Wire(address)
    with wire.channel:
        yield wire


def one_shot(prompt: str = PROMPT, model: str = "gru", **fields: Any) -> messages.GenerateRequest:
    """Return a request that needs no session, of 20 characters unless `stopping` is given."""
    fields.setdefault("stopping", messages.Stopping(max_chars=20))
    return messages.GenerateRequest(model=f"models/{model}", prompt=prompt, **fields)


def held(session: str, max_chars: int = 2000, **fields: Any) -> messages.GenerateRequest:
    """Return a turn that ends only if somebody reads it: 100 of its answers fill a flow-control window of 64 KiB."""
    stopping = messages.Stopping(max_chars=max_chars)
    detail = messages.Detail(log_probability=True, top_n=20)
    return messages.GenerateRequest(
        session=session, prompt=PROMPT, stopping=stopping, detail=detail, chunk_chars=1, **fields
    )


def begin(wire: Wire, request: messages.GenerateRequest) -> Any:
    """Send a turn and wait until it has drawn its first character; return the call."""
    call: Any = wire.generation.Generate(request, timeout=PATIENCE)
    first = next(call)
    assert first.HasField("started")
    assert first.HasField("chunk") or next(call).HasField("chunk")
    return call


def text_of(responses: list[messages.GenerateResponse]) -> str:
    """Return the joined text of a turn."""
    return "".join(response.chunk.text for response in responses)


def refusal(error: Any) -> Refusal:
    """Return what a failed call says."""
    status = Status.FromString(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
    details: dict[str, Any] = {}
    for packed in status.details:
        name = packed.TypeName().removeprefix("google.rpc.")
        details[name] = getattr(error_details_pb2, name).FromString(packed.value)
    return Refusal(
        code=error.code().name,
        reason=details["ErrorInfo"].reason if details else "",
        fields=tuple(v.field for v in details["BadRequest"].field_violations) if "BadRequest" in details else (),
        retry="RetryInfo" in details and details["RetryInfo"].retry_delay.ToMilliseconds() > 0,
    )


def refused(call: Any, *args: Any) -> Refusal:
    """Make a call that has to fail; return how."""
    try:
        call(*args)
    except grpc.RpcError as error:
        return refusal(error)
    raise AssertionError("the call was not refused")


def reference(client: "Client | Session", **options: Any) -> str:
    """Return the text that the same request gives every time."""
    return "".join(client.generate(PROMPT, seed=7, max_chars=100, timeout=PATIENCE, **options))
