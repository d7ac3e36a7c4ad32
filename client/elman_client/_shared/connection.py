"""Where the server is, how to get there, and what every call brings with it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from elman_client._errors import FailedPreconditionError
from elman_client._shared.fields import invalid
from elman_client._shared.operation import Operation

CHANNEL_OPTIONS = (
    # The server sets the limits; a long Score with many candidates passes gRPC's 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A dead server is noticed within 50 seconds. Elman servers allow pings much more often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


@dataclass(frozen=True)
class Call:
    """One sent call, as its errors need to know it."""

    target: str
    request_id: str
    metadata: tuple[tuple[str, str], ...]
    timeout: float | None


class Connection:
    """The settings of a client. It holds no socket."""

    def __init__(
        self,
        target: str,
        *,
        tls: bool,
        root_certificates: str | Path | None,
        credentials: grpc.ChannelCredentials | None,
        metadata: Mapping[str, str] | None,
        timeout: float | None,
        retry_seconds: float,
    ) -> None:
        if not isinstance(target, str):
            raise TypeError(f"target is a str such as localhost:50051, not {type(target).__name__}")
        if root_certificates is not None and not tls:
            raise ValueError("root_certificates without tls=True would not be used: pass both")
        if credentials is not None and tls:
            raise ValueError("pass credentials or tls=True, not both")
        roots = Path(root_certificates).read_bytes() if root_certificates is not None else None
        self.target = target
        self.credentials = grpc.ssl_channel_credentials(roots) if tls else credentials
        self.is_closed = False
        self.is_proven = False  # a server has answered
        self.retry_seconds = _patience(retry_seconds)
        self._metadata = tuple((metadata or {}).items())
        self._timeout = _seconds(timeout)

    def call(self, operation: Operation[Any], timeout: float | None) -> Call:
        """Return what goes with ``operation``: a request id, the headers and the deadline.

        Raises:
            FailedPreconditionError: The client is closed.
        """
        if self.is_closed:
            raise FailedPreconditionError("this client is closed: make a new one")
        request_id = str(uuid4())
        headers = (*self._metadata, ("x-request-id", request_id))
        if operation.session:
            headers += (("x-session-id", operation.session.removeprefix("sessions/")),)
        if operation.key:
            headers += (("idempotency-key", operation.key),)
        return Call(self.target, request_id, headers, self.timeout_of(timeout))

    def timeout_of(self, timeout: float | None) -> float | None:
        """Return the seconds of a call; ``None``: no deadline."""
        return self._timeout if timeout is None else _seconds(timeout)


def _seconds(timeout: float | None) -> float | None:
    """Return what gRPC takes for ``timeout``: infinity is no deadline."""
    if timeout is None or timeout == math.inf:
        return None
    if not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds, not {type(timeout).__name__}")
    if not timeout > 0:
        raise invalid("timeout", "is a number of seconds above 0; leave it out for no deadline")
    return timeout


def _patience(seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"retry_seconds is a number of seconds, not {type(seconds).__name__}")
    if not seconds >= 0:
        raise invalid("retry_seconds", "is a number of seconds; 0 never makes a call again")
    return seconds
